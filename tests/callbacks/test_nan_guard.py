import json

import pytest
import torch

from lit_llm.callbacks import Checkpoint, NanGuard, NotFinite
from lit_llm.callbacks.nan_guard import first_not_finite
from lit_llm.training.guards import Rewind


def lines(tmp_path) -> list[dict]:
    text = (tmp_path / "run/skipped_steps.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def judged(guard: NanGuard, loss: float, grad_norm: float) -> bool:
    opinion = guard.judge(1, torch.tensor([loss, grad_norm]))
    assert bool(opinion.skip) == (float(opinion.note) != 0)
    return bool(opinion.skip)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("loss", "grad_norm", "bad"),
    [(2.0, 3.0, False), (NAN, 3.0, True), (2.0, INF, True), (-INF, INF, True), (3e38, 3e38, False)],
)
def test_a_step_is_bad_if_its_loss_or_gradient_is_not_finite(loss, grad_norm, bad):
    assert judged(NanGuard(), loss, grad_norm) == bad


def test_gradients_that_overflow_float16_are_the_scalers_business(fit):
    guard = NanGuard()
    guard._scaled = True
    assert not judged(guard, 2.0, INF)
    assert judged(guard, NAN, INF)


def test_a_bad_step_is_left_out_and_written_down_and_the_run_goes_on(fit, tiny_lm, tmp_path):
    model = tiny_lm()
    model.poison_at = 3
    trainer, _ = fit([NanGuard(), Checkpoint(every_n_steps=2)], model=model)
    assert trainer.global_step == 6
    assert all(torch.isfinite(p).all() for p in model.parameters())
    (line,) = lines(tmp_path)
    assert line["grad_norm"] is None  # JSON has no NaN
    assert (line["step"], line["reason"], line["action"]) == (3, "loss", "skipped")
    assert line["samples"] == [[2, "letters", 102]]  # the third step begins at position 2
    weights = {f: torch.load(tmp_path / f"run/step-0000000{f}/training.ckpt") for f in (4, 6)}
    steps = [weights[f]["optimizer_states"][0]["state"][0]["step"] for f in (4, 6)]
    assert steps == [3, 5]  # one of the steps does not count for AdamW's moments


def test_so_many_bad_steps_in_a_row_end_the_run(fit, tiny_lm, tmp_path):
    model = tiny_lm()
    model.poison_at, model.poison_until = 2, 9
    with pytest.raises(NotFinite, match=r"step 4 was the 3rd in a row whose loss is nan"):
        fit([NanGuard(max_in_a_row=3)], model=model, max_steps=9)
    assert [line["action"] for line in lines(tmp_path)] == ["skipped", "skipped", "stopped"]


def test_good_steps_in_between_begin_the_row_anew(fit, tiny_lm, tmp_path):
    class EverySecond(tiny_lm):
        def training_step(self, batch, batch_idx):
            self.poison_at = self.trainer.global_step + 1 if self.trainer.global_step % 2 else None
            return super().training_step(batch, batch_idx)

    trainer, _ = fit([NanGuard(max_in_a_row=2)], model=EverySecond(), max_steps=8)
    assert trainer.global_step == 8
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6, 8]


class Breaks(NanGuard):
    """Breaks a weight in front of a step's first forward pass."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 4:
            pl_module.gpt.norm.weight.data[1] = float("inf")


def test_a_broken_weight_is_named_and_asks_to_go_back(fit, tmp_path):
    with pytest.raises(Rewind, match=r"weight gpt\.norm\.weight is not finite .* at step 5") as got:
        fit([Breaks(), Checkpoint(every_n_steps=2)])
    assert got.value.progress  # steps 2 and 4 have been saved
    saved = [path.name for path in (tmp_path / "run").glob("step-*")]
    assert sorted(saved) == ["step-00000002", "step-00000004"]
    (line,) = lines(tmp_path)
    assert (line["reason"], line["action"]) == ("parameter gpt.norm.weight", "rewound")
    assert line["over"] == []


def test_a_broken_weight_that_no_loss_has_shown_is_found_before_a_save(fit, tiny_lm, tmp_path):
    class Unused(tiny_lm):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(3))

        def on_train_batch_start(self, batch, batch_idx):
            if self.trainer.global_step == 3:
                self.unused.data[2] = float("nan")

    with pytest.raises(Rewind, match="weight unused is not finite"):
        fit([NanGuard(), Checkpoint(every_n_steps=2)], model=Unused())
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-00000002"]


def test_a_run_that_breaks_off_saves_no_broken_weight_and_does_not_go_back():
    guard = NanGuard()
    guard.on_train_start(None, None)
    guard.on_exception(None, None, KeyboardInterrupt())
    guard._module = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(guard._module.weight, float("nan"))
    guard._file = type("File", (), {"add": lambda *_, **__: None})()
    with pytest.raises(NotFinite, match="nothing is saved"):
        guard._check_weights(7)


def test_a_disabled_guard_lets_everything_pass(fit, tiny_lm, tmp_path):
    model = tiny_lm()
    model.poison_at = 3
    fit([NanGuard(enabled=False), Checkpoint()], model=model)
    assert not all(torch.isfinite(p).all() for p in model.parameters())
    assert not (tmp_path / "run/skipped_steps.jsonl").exists()


def test_a_sound_run_is_left_alone(fit, tmp_path):
    trainer, model = fit([NanGuard(), Checkpoint()])
    assert trainer.global_step == 6
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not (tmp_path / "run/skipped_steps.jsonl").exists()


def test_the_first_parameter_that_is_not_finite_is_named():
    tensors = {"a": torch.ones(2), "b": torch.tensor([1, INF]), "c": torch.tensor([NAN])}
    assert first_not_finite(tensors.items()) == "b"
    assert first_not_finite([("a", tensors["a"])]) is None
    assert first_not_finite([]) is None


@pytest.mark.parametrize("settings", [{"max_in_a_row": 0}, {"max_rewinds": -1}])
def test_numbers_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"give \d or more"):
        NanGuard(**settings)
