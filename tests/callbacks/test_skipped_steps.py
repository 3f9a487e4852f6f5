import json
import os
from types import SimpleNamespace

import pytest

from lit_llm.callbacks.skipped_steps import SkippedSteps


@pytest.fixture
def skipped(tmp_path):
    def make(is_global_zero=True) -> SkippedSteps:
        return SkippedSteps(
            SimpleNamespace(
                default_root_dir=tmp_path / "run",
                is_global_zero=is_global_zero,
                datamodule=SimpleNamespace(samples_of_step=lambda step: [(4 * step, "a", 77)]),
                strategy=SimpleNamespace(broadcast=lambda value: value),
            )
        )

    return make


def test_a_line_says_what_happened_and_names_the_samples(skipped):
    file = skipped()
    file.add(3, "gradient", "skipped", loss=2.5, grad_norm=float("inf"), over=[3])
    assert json.loads(file.path.read_text()) == {
        "step": 3,
        "reason": "gradient",
        "loss": 2.5,
        "grad_norm": None,
        "action": "skipped",
        "over": [3],
        "samples": [[8, "a", 77]],  # the third step is number 2 from 0
    }


def test_a_step_that_is_made_again_is_not_written_twice(skipped):
    for _ in range(2):
        skipped().add(3, "loss", "skipped", over=[3])
        skipped().add(5, "loss", "skipped", over=[5])
    assert len(skipped().path.read_text().splitlines()) == 2


def test_only_rewinds_are_passed_over_when_they_come_again(skipped):
    file = skipped()
    assert file.passed_over() == frozenset()
    file.add(3, "loss", "skipped", over=[3])
    file.add(9, "spike", "rewound", over=[8, 9])
    file.add(20, "spike", "rewound", over=[20])
    assert skipped().passed_over() == {8, 9, 20}


def test_half_a_line_of_a_killed_process_spoils_no_other(skipped):
    file = skipped()
    file.add(9, "spike", "rewound", over=[9])
    with file.path.open("a") as cut:
        cut.write('{"step": 12, "act')
    assert file.passed_over() == {9}
    file.add(20, "spike", "rewound", over=[20])
    assert file.passed_over() == {9, 20}


@pytest.fixture
def full_disk(monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def test_a_full_disk_ends_no_run_for_a_line(skipped, full_disk):
    with pytest.warns(UserWarning, match=r"skipped_steps\.jsonl .* step 3: .*No space left"):
        skipped().add(3, "loss", "skipped", over=[3])
    with pytest.warns(UserWarning, match="No space left"):
        skipped().add(3, "parameter w", "rewound")


def test_without_its_line_a_rewind_would_never_end_so_all_processes_end(skipped, full_disk):
    said = []
    first = skipped()
    first._trainer.strategy.broadcast = lambda value: said.append(value) or value
    with pytest.raises(OSError, match="No space left"):
        first.add(9, "spike", "rewound", over=[9])
    other = skipped(is_global_zero=False)
    other._trainer.strategy.broadcast = lambda value: said[0]
    with pytest.raises(OSError, match="No space left"):
        other.add(9, "spike", "rewound", over=[9])


def test_other_processes_write_nothing(skipped):
    file = skipped(is_global_zero=False)
    file.add(3, "loss", "skipped")
    assert not file.path.exists()
