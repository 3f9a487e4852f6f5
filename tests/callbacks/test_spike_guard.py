import json
import math
import random
from itertools import pairwise
from statistics import median

import pytest
import torch

from lit_llm.callbacks import Checkpoint, SpikeGuard
from lit_llm.training.guards import Judged, Rewind


def run(guard: SpikeGuard, numbers) -> list[bool]:
    """What a guard leaves out, step by step."""
    return [
        bool(guard.judge(step, torch.tensor(two, dtype=torch.float32)).skip)
        for step, two in enumerate(numbers, 1)
    ]


def clean(n: int, seed: int = 0, noise: float = 0.05):
    """A loss that falls from 6 to 2, the faster the earlier, and a gradient norm about 1."""
    draw = random.Random(seed)
    return [
        (2 + 4 * math.exp(-i / 60) + draw.gauss(0, noise), math.exp(draw.gauss(0, 0.2)))
        for i in range(n)
    ]


def slow_reference(numbers, window: int, threshold: float, patience: int) -> list[bool]:
    """The same in plain Python, for each of loss and log of gradient norm by itself."""
    history = [[], []]
    pending, skipped, row = [], [], 0
    limits = [math.inf, math.inf]
    for loss, norm in numbers:
        now = (loss, math.log(norm))
        spike = any(value > limit for value, limit in zip(now, limits, strict=True))
        row = row + 1 if spike else 0
        skipped.append(0 < row <= patience)
        pending.append((now, skipped[-1]))
        if len(pending) < 8:
            continue
        for i, least in enumerate((0.2, math.log(5))):
            level = median(history[i][-9:]) if len(history[i]) >= 9 else None
            history[i] += [level if bad else both[i] for both, bad in pending]
            last = history[i][-window:]
            if len(last) == window:
                changes = sorted(abs(b - a) for a, b in pairwise(last))
                noise = changes[(window - 1) // 2] * 1.048 * threshold
                limits[i] = median(last[-9:]) + max(noise, least)
        pending = []
    return skipped


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_what_a_slow_reference_finds(seed):
    numbers = clean(300, seed)
    draw = random.Random(seed)
    for _ in range(40):
        at = draw.randrange(100, 300)
        numbers[at] = (numbers[at][0] + draw.choice([0.3, 0.6, 2]), draw.choice([1, 3, 8, 30]))
    settings = {"window": 33, "threshold": 6.0, "patience": 3}
    found = run(SpikeGuard("skip", **settings), numbers)
    assert found == slow_reference(numbers, **settings)
    assert 10 < sum(found) < 50


def test_each_jump_is_found_in_its_own_step():
    numbers = clean(400)
    spikes = {100: (5.5, 1.0), 101: (5.5, 1.0), 180: (2.0, 40.0), 300: (4.0, 40.0), 399: (3.0, 1.0)}
    for at, two in spikes.items():
        numbers[at] = two
    found = run(SpikeGuard("skip"), numbers)
    assert [i for i, bad in enumerate(found) if bad] == list(spikes)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3])
def test_a_clean_run_has_none_however_noisy_or_smooth_it_is(noise):
    for seed in range(5):
        assert not any(run(SpikeGuard("skip"), clean(500, seed, noise)))


def test_nothing_is_a_spike_before_the_window_is_full():
    numbers = [(2.0, 1.0)] * 63 + [(90.0, 90.0)] + [(2.0, 1.0)] * 64 + [(90.0, 1.0)]
    assert [i for i, bad in enumerate(run(SpikeGuard("skip", window=64), numbers)) if bad] == [128]


def test_a_level_that_stays_is_accepted_after_its_patience_and_a_later_spike_is_found():
    higher = [(loss + 3, norm) for loss, norm in clean(200, 1)]
    numbers = clean(200) + higher
    numbers[350] = (20.0, 1.0)
    found = run(SpikeGuard("skip", patience=4), numbers)
    assert [i for i, bad in enumerate(found) if bad] == [200, 201, 202, 203, 350]


def test_numbers_that_are_not_finite_spoil_no_statistics():
    numbers = clean(300)
    with_holes = list(numbers)
    for i in (70, 71, 150):
        with_holes[i] = (math.nan, math.nan)
    with_holes[250] = (8.0, 1.0)
    found = run(SpikeGuard("skip"), with_holes)
    assert [i for i, bad in enumerate(found) if bad] == [250]


@pytest.mark.parametrize("at", [3, 64, 103, 206])
def test_a_resumed_guard_decides_as_one_that_was_not_interrupted(at):
    numbers = clean(300)
    for i in (100, 101, 102, 104, 210):
        numbers[i] = (9.0, 9.0)
    whole = SpikeGuard("skip")
    expected = run(whole, numbers)
    first, second = SpikeGuard("skip"), SpikeGuard("skip")
    begun = run(first, numbers[:at])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + run(second, numbers[at:]) == expected
    assert repr(second.state_dict()) == repr(whole.state_dict())  # bit for bit, NaN included


def test_the_state_of_another_window_is_left_alone():
    guard = SpikeGuard(window=16)
    run(guard, clean(50))
    other = SpikeGuard(window=32)
    other.load_state_dict(guard.state_dict())
    assert other._before.shape == (2, 32)


class Jumps:
    """Makes a model whose loss is multiplied by 9 at some steps."""

    def __new__(cls, tiny_lm, *steps):
        class Jumping(tiny_lm):
            def training_step(self, batch, batch_idx):
                loss = super().training_step(batch, batch_idx)
                self.train_loss = loss * (9 if self.trainer.global_step + 1 in steps else 1)
                return self.train_loss

        return Jumping()


def lines(tmp_path):
    return [json.loads(x) for x in (tmp_path / "run/skipped_steps.jsonl").read_text().splitlines()]


QUIET = {"limit_val_batches": 0, "log_every_n_steps": 50}


@pytest.mark.parametrize(("on_spike", "steps"), [("warn", 24), ("skip", 23)])
def test_a_spike_is_said_and_written_down_and_skipped_if_asked_for(
    fit, tiny_lm, tmp_path, on_spike, steps, caplog
):
    guard = SpikeGuard(on_spike, window=16)
    with caplog.at_level("INFO"):
        trainer, _ = fit([guard], model=Jumps(tiny_lm, 20), max_steps=24, **QUIET)
    (line,) = lines(tmp_path)
    assert (line["step"], line["reason"], line["samples"]) == (20, "spike", [[19, "letters", 119]])
    assert line["over"] == ([20] if on_spike == "skip" else [])
    state = trainer.optimizers[0].state_dict()["state"][0]
    assert float(state["step"]) == steps
    assert "is a spike" in caplog.text


def test_a_rewind_passes_over_the_spike_and_as_many_steps_before_as_asked_for(
    fit, tiny_lm, tmp_path
):
    def callbacks():
        return [SpikeGuard("rewind", window=16, rewind_over=2), Checkpoint(every_n_steps=6)]

    with pytest.raises(Rewind, match=r"step 20: loss .* is a spike"):
        fit(callbacks(), model=Jumps(tiny_lm, 20), max_steps=24, **QUIET)
    assert (tmp_path / "run/step-00000018").exists()
    trainer, _ = fit(
        callbacks(),
        model=Jumps(tiny_lm, 20),
        max_steps=24,
        ckpt_path=str(tmp_path / "run/step-00000018"),
        **QUIET,
    )
    assert trainer.global_step == 24
    assert float(trainer.optimizers[0].state_dict()["state"][0]["step"]) == 22
    (line,) = lines(tmp_path)
    assert (line["action"], line["over"]) == ("rewound", [19, 20])


def test_an_error_with_a_spike_pending_goes_on_and_saves_nothing_behind_the_spike(
    fit, tiny_lm, tmp_path
):
    class Failing(tiny_lm):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.trainer.global_step == 20:
                raise RuntimeError("out of memory")
            self.train_loss = loss * (9 if self.trainer.global_step + 1 == 20 else 1)
            return self.train_loss

        def on_train_batch_end(self, outputs, batch, batch_idx):
            pass  # the host hears of nothing, as on several GPUs between two log steps

    guard = SpikeGuard("rewind", window=16)
    with pytest.warns(UserWarning, match="spike: nothing is saved"), pytest.raises(RuntimeError):
        fit([guard, Checkpoint(every_n_steps=18)], model=Failing(), max_steps=24, **QUIET)
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-00000018"]
    (line,) = lines(tmp_path)
    assert (line["action"], line["over"]) == ("rewound", [20])  # passed over by whoever resumes


def test_a_new_level_is_said_once(caplog):
    guard = SpikeGuard(patience=2)
    guard._file = type("File", (), {"add": lambda *_, **__: None, "path": "file"})()
    with caplog.at_level("INFO"):
        for note in (1, 2, 3, 4, 5, 0):
            guard.learn(Judged(note, 2.0, 1.0, float(note)))
    assert caplog.text.count("are the new level") == 1
    assert caplog.text.count("is a spike;") == 2


@pytest.mark.parametrize(
    "settings", [{"window": 8}, {"patience": 0}, {"rewind_over": 0}, {"threshold": 0}]
)
def test_numbers_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="give"):
        SpikeGuard(**settings)
