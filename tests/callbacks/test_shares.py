"""Operators are sorted by who called them; times here are made up, in microseconds."""

from types import SimpleNamespace

import pytest
import torch
from torch.profiler import profile, record_function

from lit_llm.callbacks.shares import parts, shares
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights


class Event(SimpleNamespace):
    """What the sorting reads of an event: `took` is its own time, without what it calls."""

    clock = 0

    def __init__(self, name, took, parent=None, sequence=-1, device=0.0, span=0.0) -> None:
        Event.clock += 1
        super().__init__(
            name=name,
            self_cpu_time_total=took,
            self_device_time_total=device,
            cpu_parent=parent,
            sequence_nr=sequence,
            device_type=SimpleNamespace(name="CPU"),
            time_range=SimpleNamespace(start=Event.clock, elapsed_us=lambda: span),
        )


def by_name(found):
    return {share.name: round(1e6 * share.seconds) for share in found}


def test_an_operator_counts_where_it_is_called_and_a_matrix_product_everywhere_as_one():
    step = Event("ProfilerStep#5", 1)
    norm = Event("part: norms", 2, step)
    gate = Event("part: MLP activation", 4, step)
    linear = Event("aten::linear", 8, gate)
    events = [
        *(step, norm, gate, linear),
        Event("aten::mul", 16, norm),
        Event("aten::silu", 32, gate),
        Event("aten::mm", 64, linear),
        Event("aten::_to_copy", 128, linear),
        Event("aten::eq", 256, step),
    ]
    by_part, operators = shares(events, on_device=False)
    assert by_name(by_part) == {
        "matrix products": 8 + 64,
        "casts": 128,
        "norms": 16,
        "MLP activation": 32,
        "rest": 256,
        "between operators": 1 + 2 + 4,
    }
    assert [share.name for share in operators][:2] == ["aten::eq", "aten::_to_copy"]


def test_what_undoes_an_operator_counts_where_the_operator_did():
    step = Event("ProfilerStep#5", 0)
    norm, rope = Event("part: norms", 0, step), Event("part: RoPE, heads", 0, step)
    # a view has no node of its own and carries the number of the next: the multiplication's
    forward = [Event("aten::view", 1, rope, 7), Event("aten::mul", 2, norm, 7)]
    forward.append(Event("aten::add", 4, rope, 8))
    undo = [Event("autograd::engine::evaluate_function: B", 8, step, n) for n in (8, 7)]
    backward = [Event("aten::neg", 16, undo[0]), Event("aten::sum", 32, undo[1])]
    by_part, _ = shares([step, norm, rope, *forward, *undo, *backward], on_device=False)
    assert by_name(by_part) == {
        "norms": 2 + 32,
        "RoPE, heads": 1 + 4 + 16,
        "between operators": 8 + 8,
    }


def test_the_closure_that_an_optimizer_calls_is_not_the_optimizer():
    step = Event("ProfilerStep#5", 0)
    optimizer = Event("Optimizer.step#Muon.step", 1, step)
    closure = Event("part: rest", 0, optimizer)
    events = [
        *(step, optimizer, closure),
        Event("aten::mm", 2, optimizer),  # Newton-Schulz
        Event("aten::_foreach_mul_", 4, optimizer),
        Event("aten::_foreach_mul_", 8, closure),
        Event("aten::mm", 16, closure),
    ]
    by_part, _ = shares(events, on_device=False)
    assert by_name(by_part) == {
        "optimizer": 1 + 2 + 4,
        "clipping": 8,
        "matrix products": 16,
        "between operators": 0,
    }


def test_on_a_device_kernels_count_and_what_is_left_of_the_step_is_waiting():
    step = Event("ProfilerStep#5", 900, span=1000.0)
    kernel = SimpleNamespace(name="gemm", device_type=SimpleNamespace(name="CUDA"))
    events = [
        step,
        Event("aten::mm", 50, step, device=300.0),
        Event("triton_red_fused_rsqrt_0", 50, step, device=450.0),
        kernel,  # seen a second time, as what the device did
    ]
    by_part, operators = shares(events, on_device=True)
    assert by_name(by_part) == {
        "fused by torch.compile": 450,
        "matrix products": 300,
        "device waits": 250,
    }
    assert [share.name for share in operators] == ["triton_red_fused_rsqrt_0", "aten::mm"]


def test_the_products_of_an_attention_written_as_a_function_of_autograd_are_its_own():
    step = Event("ProfilerStep#5", 0)
    part = Event("part: RoPE, heads", 0, step)
    function = Event("_CausalAttention", 1, part)
    undo = Event("autograd::engine::evaluate_function: _CausalAttentionBackward", 0, step)
    events = [step, part, function, Event("aten::bmm", 2, function), Event("aten::bmm", 4, undo)]
    by_part, _ = shares([*events, undo], on_device=False)
    assert by_name(by_part) == {"attention": 1 + 2 + 4, "between operators": 0}


@pytest.fixture
def gpt() -> GPT:
    config = GPTConfig(vocab_size=90, max_seq_len=16, n_layer=1, d_model=24, n_head=2, qk_norm=True)
    gpt = GPT(config)
    init_weights(gpt, 3, 1)
    return gpt


def train(gpt: GPT, optimizer: torch.optim.Optimizer) -> float:
    tokens = torch.arange(32).view(2, 16)

    def closure():
        loss = gpt(tokens).logsumexp(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        return loss

    return optimizer.step(closure=closure).item()


def test_the_parts_of_a_real_step_add_up_to_its_time(gpt):
    optimizer = torch.optim.AdamW(gpt.parameters(), fused=True)
    with parts(gpt, optimizer), profile() as found, record_function("ProfilerStep#0"):
        train(gpt, optimizer)
    by_part, operators = shares(found.events(), on_device=False)
    whole = next(event for event in found.events() if event.name.startswith("ProfilerStep"))
    assert sum(s.seconds for s in by_part) == pytest.approx(1e-6 * whole.cpu_time_total, rel=0.02)
    assert {"matrix products", "attention", "norms", "optimizer", "embedding", "loss"} <= {
        share.name for share in by_part
    }
    calls = {share.name: share.calls for share in operators}
    # 7 matrices of a block and the head, each forward and twice backward
    assert calls["aten::mm"] == 3 * 8


def test_marks_change_no_number_and_leave_no_hook(gpt):
    optimizer = torch.optim.SGD(gpt.parameters(), lr=0.0)
    before = train(gpt, optimizer)
    with parts(gpt, optimizer):
        assert train(gpt, optimizer) == before
    hooks = [m._forward_pre_hooks or m._forward_hooks for m in gpt.modules()]
    assert not any(hooks)
    assert not optimizer._optimizer_step_pre_hooks


def test_inside_compiled_blocks_nothing_is_marked(gpt):
    optimizer = torch.optim.SGD(gpt.parameters(), lr=0.0)
    with parts(gpt, optimizer, inside_blocks=False):
        assert gpt.blocks[0]._forward_pre_hooks
        assert not any(m._forward_pre_hooks for m in gpt.blocks[0].children())
