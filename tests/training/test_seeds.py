import torch

from lit_llm.training.seeds import mix, seed_generators


def test_every_part_counts_and_nothing_else():
    seeds = {
        mix(s, step, m, r) for s in range(3) for step in range(40) for m in (0, 1) for r in (0, 1)
    }
    assert len(seeds) == 3 * 40 * 2 * 2
    assert mix(1, 23, 4) != mix(12, 3, 4)
    assert mix(1, 2) == mix(1, 2)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_generator_of_the_cpu_is_seeded_as_torch_does_it():
    torch.manual_seed(2**62 + 5)
    expected = torch.rand(3)
    seed_generators(2**62 + 5, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_nothing_is_kept_for_devices_that_are_not_there(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    seed_generators(1, torch.device("cpu"))
    assert asked == []
    seed_generators(1, torch.device("cuda"))
    assert asked == [1]


def test_a_kind_of_device_that_is_not_known_here_is_seeded_by_torch(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "manual_seed", asked.append)
    seed_generators(5, torch.device("hpu"))
    assert asked == [5]
    seed_generators(5, torch.device("cpu"))
    assert asked == [5]
