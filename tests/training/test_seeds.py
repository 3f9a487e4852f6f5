from lit_llm.training.seeds import mix


def test_every_part_counts_and_nothing_else():
    seeds = {
        mix(s, step, m, r) for s in range(3) for step in range(40) for m in (0, 1) for r in (0, 1)
    }
    assert len(seeds) == 3 * 40 * 2 * 2
    assert mix(1, 23, 4) != mix(12, 3, 4)
    assert mix(1, 2) == mix(1, 2)
    assert all(0 <= seed < 2**63 for seed in seeds)
