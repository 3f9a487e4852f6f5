from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from lit_llm.training.loops import apply_configured_options, count_batches, set_accumulation


def trainer(**settings):
    defaults = {
        "accumulate_grad_batches": 1,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": None,
        "limit_train_batches": 1.0,
    }
    return SimpleNamespace(**{**defaults, **settings})


def test_what_is_counted_in_steps_becomes_micro_batches():
    run = trainer(val_check_interval=50, limit_train_batches=2)
    set_accumulation(run, 3)
    assert run.accumulate_grad_batches == 3
    assert run.val_check_interval == 150
    assert run.limit_train_batches == 6


def test_shares_stay_shares():
    run = trainer(val_check_interval=0.5)
    set_accumulation(run, 3)
    assert run.val_check_interval == 0.5
    assert run.limit_train_batches == 1.0


def test_accumulation_is_not_for_the_user_to_set():
    with pytest.raises(ValueError, match=r"=4 is not yours to set: .*\n.*with this data it is 3"):
        set_accumulation(trainer(accumulate_grad_batches=4), 3)


def checkpoint(step: int, batches: int) -> dict:
    """As Lightning writes it after `batches` micro-batches."""
    counts = {"ready": batches, "started": batches, "processed": batches, "completed": batches}
    loop = {
        "epoch_loop.batch_progress": {
            "total": dict(counts),
            "current": dict(counts),
            "is_last_batch": True,
        },
        "epoch_loop.state_dict": {"_batches_that_stepped": batches},
    }
    return {"global_step": step, "loops": {"fit_loop": loop}}


def test_a_checkpoint_from_the_middle_of_a_step_goes_on_at_its_beginning():
    saved = checkpoint(step=5, batches=22)  # four micro-batches a step, two of the sixth done
    count_batches(saved, accumulate=3)  # and three a step from now on
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counter in (progress["total"], progress["current"]):
        assert counter == {"ready": 15, "started": 15, "processed": 15, "completed": 14}
    assert progress["is_last_batch"] is False
    assert saved["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] == 4


def half(step: int) -> float:
    return 0.5**step


def resumed(schedule: bool):
    """A trainer that has restored step 3 of a run with lr 0.1 and 0.2, decay 0.01."""
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], "kind": "matrix", "lr": 0.1},
        {"params": [torch.nn.Parameter(torch.zeros(3))], "kind": "head", "lr": 0.2},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.95))
    schedulers = []
    if schedule:
        scheduler = LambdaLR(optimizer, half)
        for _ in range(3):
            optimizer.step()
            scheduler.step()
        schedulers = [SimpleNamespace(scheduler=scheduler)]
    return SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=schedulers)


def configured(**changes):
    old = {"weight_decay": 0.01, "betas": (0.9, 0.95)}
    return [{"kind": "matrix", "lr": 0.1, **old, **changes}, {"kind": "head", "lr": 0.2, **old}]


@pytest.mark.parametrize("schedule", [True, False])
def test_the_configuration_decides_over_rate_and_decay_and_says_so(schedule):
    run = resumed(schedule)
    lines = apply_configured_options(run, configured(lr=0.8, weight_decay=0.5))
    assert lines == ["matrix: lr 0.1 -> 0.8", "matrix: weight_decay 0.01 -> 0.5"]
    matrix, head = run.optimizers[0].param_groups
    factor = 0.5**3 if schedule else 1
    assert matrix["lr"] == pytest.approx(0.8 * factor)
    assert head["lr"] == pytest.approx(0.2 * factor)
    assert matrix["weight_decay"] == 0.5
    if schedule:  # and it stays so: the scheduler's next step starts from the new rate
        run.lr_scheduler_configs[0].scheduler.step()
        assert [group["lr"] for group in (matrix, head)] == pytest.approx([0.05, 0.0125])


@pytest.mark.parametrize("schedule", [True, False])
def test_an_unchanged_configuration_changes_nothing(schedule):
    run = resumed(schedule)
    before = [group["lr"] for group in run.optimizers[0].param_groups]
    assert apply_configured_options(run, configured()) == []
    assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx(before)
