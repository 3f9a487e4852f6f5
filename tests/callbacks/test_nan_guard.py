import pytest
import torch

from lit_llm.callbacks import Checkpoint, NanGuard, NotFinite


def test_the_run_stops_at_the_first_log_step_and_names_it(fit, tiny_lm):
    model = tiny_lm()
    model.poison_at = 3
    with pytest.raises(NotFinite, match=r"loss is not finite .* at step 4"):
        fit([NanGuard()], model=model, max_steps=9, limit_val_batches=0)


def test_nothing_is_saved_of_a_broken_run(fit, tiny_lm, tmp_path):
    model = tiny_lm()
    model.poison_at = 5
    with pytest.raises(NotFinite, match=r"weights are not finite .* at step 5"):
        fit([NanGuard(), Checkpoint(every_n_steps=1)], model=model, log_every_n_steps=50)
    saved = [path.name for path in (tmp_path / "run").glob("step-*")]
    assert sorted(saved) == ["step-00000003", "step-00000004"]


def test_a_sound_run_is_left_alone(fit):
    trainer, model = fit([NanGuard(), Checkpoint()])
    assert trainer.global_step == 6
    assert all(torch.isfinite(p).all() for p in model.parameters())
