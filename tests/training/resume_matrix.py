"""Continues checkpoints of every strategy under one strategy, for test_resume_matrix.py.

    torchrun --standalone --nproc-per-node 2 -- tests/training/resume_matrix.py ARGUMENTS...

ARGUMENTS are those of several `fit` commands, separated by "then": starting processes and
importing libraries takes longer than these runs.
"""

import itertools
import sys

from lit_llm.cli import main


def commands(arguments: list[str]) -> list[list[str]]:
    groups = itertools.groupby(arguments, lambda argument: argument == "then")
    return [list(group) for is_border, group in groups if not is_border]


if __name__ == "__main__":
    for command in commands(sys.argv[1:]):
        main(command)
