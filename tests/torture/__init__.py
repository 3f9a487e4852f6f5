"""What is done to a run to lose something of it: see docs/trust.md.

    make torture                  every row, all trials
    make torture ROWS=2,5 SEED=7  some of them, with other moments, files and bits

Plain pytest runs a few trials of each row.
"""
