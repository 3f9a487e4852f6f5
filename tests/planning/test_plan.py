from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim import AdamW

from lit_llm.model.config import GPTConfig
from lit_llm.model.size import size
from lit_llm.objective import CausalLM
from lit_llm.planning.choices import choices
from lit_llm.planning.devices import Device
from lit_llm.planning.plan import USABLE, Run, _largest, plan_run
from lit_llm.planning.sharding import Spread
from lit_llm.planning.trace import Job

T = 32
CONFIG = GPTConfig(vocab_size=512, max_seq_len=T, n_layer=2, d_model=64, n_head=4)
JOB = Job(gpt=CONFIG, objective=CausalLM(), optimizer=partial(AdamW, fused=True), seq_len=T)


def run(memory: float, spread: Spread = Spread(), **changes) -> Run:  # noqa: B008 - frozen
    values = {"job": JOB, "global_batch_size": 64, "micro_batch_size": 8, **changes}
    return Run(device=Device("X", int(memory / USABLE) + 1, 1e12), spread=spread, **values)


def needed(rows: int, spread: Spread = Spread(), job: Job = JOB) -> float:  # noqa: B008
    return plan_run(run(1e12, spread, micro_batch_size=rows, job=job)).needed


def test_a_plan_adds_up():
    plan = plan_run(run(1e9, max_steps=10, mfu=0.5))
    counts = size(CONFIG, T)
    assert (plan.parameters, plan.flops_per_token) == (counts.parameters, counts.flops_per_token)
    assert plan.needed == sum(plan.memory.values()) == max(plan.phases.values())
    assert (plan.accumulate, plan.tokens_per_step) == (8, 64 * T)
    assert plan.tokens_per_second == pytest.approx(0.5 * 1e12 / counts.flops_per_token)
    assert plan.hours == pytest.approx(10 * 64 * T / plan.tokens_per_second / 3600)
    # keys and values, 16 bits, 2 layers of 64 channels
    assert plan.cache_bytes_per_token == 2 * 2 * 2 * 64
    assert plan.cache_bytes_per_sequence == plan.cache_bytes_per_token * T


def test_it_fits_up_to_the_usable_share_of_memory():
    exactly = needed(8)
    assert plan_run(run(exactly)).fits
    assert not plan_run(run(exactly - 4)).fits


@pytest.mark.parametrize("rows", [1, 4, 32])
def test_the_largest_micro_batch_fits_and_the_next_divisor_does_not(rows):
    memory = needed(rows) + 1000
    assert needed(2 * rows) > memory
    assert plan_run(run(memory)).largest_micro_batch == rows


def test_a_micro_batch_divides_the_global_batch_over_all_devices():
    spread = Spread(strategy="ddp", replicate=4)
    plan = plan_run(run(1e12, spread, global_batch_size=72, micro_batch_size=3))
    assert (plan.accumulate, plan.largest_micro_batch) == (6, 18)
    with pytest.raises(ValueError, match="is no multiple of the 20 rows that 4 devices take"):
        plan_run(run(1e12, spread, global_batch_size=72, micro_batch_size=5))


def test_few_sizes_are_looked_at():
    looked: list[int] = []

    def need(rows: int) -> float:
        looked.append(rows)
        return 100 + 7 * rows

    assert _largest([2**n for n in range(12)], 16, need, 100 + 7 * 300) == 256
    assert _largest([2**n for n in range(12)], 16, need, 99) is None
    assert len(looked) <= 3 + 6


def test_one_device_takes_the_file_for_one():
    assert plan_run(run(1e12)).trainer == "gpu.yaml"
    cpu = Run(
        job=JOB, device=Device("CPU", 10**12, None, is_gpu=False), spread=Spread(),
        global_batch_size=64,
    )  # fmt: skip
    plan = plan_run(cpu)
    assert (plan.trainer, plan.tokens_per_second, plan.hours) == ("cpu.yaml", None, None)


@pytest.mark.parametrize("nodes", [1, 2])
def test_several_devices_share_only_what_one_cannot_hold(nodes):
    ddp = Spread(strategy="ddp", replicate=8)
    memory = needed(1, ddp)
    assert plan_run(run(memory + 1, ddp, nodes=nodes)).trainer == "ddp.yaml"
    shared = "fsdp.yaml" if nodes == 1 else "hsdp.yaml"
    plan = plan_run(run(memory - 1, ddp, nodes=nodes))
    assert (plan.trainer, plan.fits) == (shared, False)
    if nodes == 2:
        everything = Spread(strategy="sharded", shard=8, reduce_each_micro_batch=True)
        memory = min(needed(rows, everything) for rows in (1, 2, 4, 8)) + 1
        assert plan_run(run(memory, ddp, nodes=2)).trainer == "multi-node.yaml"


def test_tensor_parallelism_is_for_rows_that_one_device_does_not_hold():
    job = replace(JOB, seq_len=256, gpt=replace(CONFIG, max_seq_len=256, d_model=32))
    pairs = Spread(strategy="sharded", shard=2, tensor=2, reduce_each_micro_batch=True)
    memory = needed(1, pairs, job)
    assert memory < needed(1, Spread(strategy="sharded", shard=4), job)
    plan = plan_run(run(memory + 1, Spread(strategy="ddp", replicate=4), job=job))
    assert plan.trainer == "fsdp-tp.yaml"
    assert "--model.compile false" not in plan.arguments
    compiled = run(memory + 1, Spread(strategy="ddp", replicate=4), job=replace(job, compile=True))
    plan = plan_run(compiled)
    assert plan.trainer == "fsdp-tp.yaml"
    assert "--model.compile false" in plan.arguments  # split blocks cannot be compiled


def test_a_smaller_micro_batch_is_said_where_it_is_needed():
    plan = plan_run(run(needed(4) + 1))
    assert not plan.fits
    assert "--data.micro_batch_size 4" in plan.notes[0]


def test_what_fits_nowhere_says_what_would_help():
    checkpointed = needed(1, job=replace(JOB, activation_checkpointing=1))
    assert checkpointed < needed(1)
    plan = plan_run(run(checkpointed + 1))
    assert plan.trainer is None
    assert "--model.activation_checkpointing 1" in plan.notes[0]
    assert "such devices hold it" in plan.notes[1]


def test_copies_of_weights_are_avoided_where_they_are_too_much():
    found = list(choices(4, 1, True, "bf16-mixed"))
    names = [choice.described for choice in found]
    assert names[:3] == [
        "ddp.yaml",
        "fsdp.yaml",
        "fsdp.yaml -c configs/precision/fsdp-bf16.yaml",
    ]
    assert all(choice.spread.devices == 4 for choice in found)


def test_a_configuration_of_one_strategy_is_not_asked_of_others():
    job = replace(JOB, param_dtype=torch.bfloat16)
    plan = plan_run(run(1e12, Spread(strategy="sharded", shard=2), job=job))
    assert (plan.trainer, plan.precision) == ("ddp.yaml", "32-true")
