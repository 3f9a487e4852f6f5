from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim import SGD, AdamW

from lit_llm.model.config import GPTConfig
from lit_llm.model.lora import Lora
from lit_llm.model.size import size
from lit_llm.objective import CausalLM, MaskedLM
from lit_llm.optim import Muon
from lit_llm.planning.trace import (
    BLOCKS,
    EMBEDDING,
    FORWARD,
    LOSS,
    STEP,
    Job,
    Trace,
    micro_batch,
    optimizer_step,
)
from lit_llm.tokenizer import SPECIAL

# Sizes all differ, and no product of some is another.
T, V = 48, 200
CONFIG = GPTConfig(vocab_size=V, max_seq_len=T, n_layer=2, d_model=36, n_head=3, d_ff=80)
JOB = Job(
    gpt=CONFIG, objective=CausalLM(), optimizer=partial(AdamW, fused=True), seq_len=T
)  # fmt: skip
N = size(CONFIG).parameters
MATRICES = 2 * (4 * 36 * 36 + 3 * 36 * 80)  # inside the blocks


def total(kinds: dict[str, float]) -> float:
    return sum(kinds.values())


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [
        (partial(AdamW, fused=True), 2 * N),
        (AdamW, 2 * N),
        (SGD, 0),
        (partial(SGD, momentum=0.9), N),
        (Muon, 2 * N - MATRICES),  # momentum only for matrices
    ],
)
def test_the_state_is_what_the_optimizer_makes(optimizer, numbers):
    state = optimizer_step(replace(JOB, optimizer=optimizer))[STEP]["optimizer"]
    tensors = 2 * (2 + 2 * 9) + 1  # at most one step count of 4 bytes for each
    assert 0 <= state - 4 * numbers <= 4 * tensors


@pytest.mark.parametrize(("precision", "bytes_each"), [("32-true", 4), ("bf16-true", 2)])
def test_weights_gradients_and_state_have_the_type_of_the_precision(precision, bytes_each):
    kinds = optimizer_step(replace(JOB, precision=precision))[STEP]
    assert kinds["weights"] == kinds["gradients"] == bytes_each * N
    assert kinds["optimizer"] == pytest.approx(2 * bytes_each * N, rel=1e-2)


ADAPTERS = 2 * 3 * ((36 + 36) + (80 + 36))  # q_proj and down_proj of two blocks, of rank 3
ADAPTED = replace(JOB, lora=Lora(rank=3, targets=("q_proj", "down_proj")))


def test_of_a_lora_run_adapters_alone_have_gradients_and_state():
    kinds = optimizer_step(ADAPTED)[STEP]
    assert kinds["weights"] == 4 * (N + ADAPTERS)
    assert kinds["gradients"] == 4 * ADAPTERS
    assert kinds["optimizer"] == pytest.approx(8 * ADAPTERS, rel=1e-2)
    phases = micro_batch(ADAPTED, 4, accumulating=True)
    assert {kinds["gradients"] for kinds in phases.values()} == {4 * ADAPTERS}
    # the table is frozen: nothing goes back to it, and the head's weight has no gradient either
    assert EMBEDDING not in phases
    assert total(phases[LOSS]) < total(micro_batch(JOB, 4, accumulating=True)[LOSS])


def test_a_base_in_bfloat16_takes_half_and_is_not_copied_for_autocast():
    mixed = replace(ADAPTED, precision="bf16-mixed")
    half = replace(mixed, lora=replace(mixed.lora, base_dtype="bfloat16"))
    found, copied = (micro_batch(job, 4, accumulating=False)[FORWARD] for job in (half, mixed))
    assert copied["weights"] - found["weights"] == 2 * MATRICES
    # no gradient goes through the first block's q, k and v to what is before them
    assert copied["copies"] - found["copies"] == 2 * (MATRICES - 3 * 36 * 36)


def test_a_deep_lora_run_follows_from_two_shallow_ones():
    deep = replace(ADAPTED, gpt=replace(CONFIG, n_layer=7))
    found = Trace(deep).at(4)
    whole = {**micro_batch(deep, 4, accumulating=False), **optimizer_step(deep)}
    assert found.keys() == whole.keys()
    for kind in ("weights", "gradients", "activations"):
        assert found[LOSS][kind] == pytest.approx(whole[LOSS][kind], rel=1e-3)


def test_autocast_holds_a_copy_of_the_matrices_from_the_forward_pass_on():
    phases = micro_batch(replace(JOB, precision="bf16-mixed"), 4, accumulating=False)
    head = 256 * 36  # the vocabulary is padded to a multiple of 64
    assert phases[FORWARD]["copies"] == 2 * (MATRICES + head)
    assert micro_batch(JOB, 4, accumulating=False)[FORWARD]["copies"] == 0


def test_logits_are_held_in_chunks():
    rows = 6
    whole = micro_batch(JOB, rows, accumulating=False)
    chunked = micro_batch(replace(JOB, objective=CausalLM(T)), rows, accumulating=False)
    assert whole[FORWARD]["logits"] >= 4 * rows * T * V
    assert chunked[FORWARD]["logits"] <= 4 * 4 * T * 256
    assert chunked[LOSS]["logits"] < whole[LOSS]["logits"]


def test_activations_grow_with_the_square_of_the_length_by_the_mask_alone():
    """The mask is a byte, and attention takes one of 4 bytes for each block, not for each head."""

    def held(seq_len: int) -> float:
        job = replace(JOB, seq_len=seq_len, gpt=replace(CONFIG, max_seq_len=seq_len, n_head=9))
        kinds = micro_batch(job, 2, accumulating=False)[FORWARD]
        return kinds["activations"] + kinds["residual"]

    # the second difference of a + b T + c T^2 is 2 c
    c = (held(3 * 96) - 2 * held(2 * 96) + held(96)) / (2 * 96**2)
    rows, blocks = 2, 2
    assert c <= rows * (3 + 4 * blocks + 4)  # comparison, its lower triangle; per block; in work
    assert c < rows * 4 * 9 * blocks  # what scores of every head would take


def test_checkpointing_keeps_the_inputs_of_blocks():
    plain = micro_batch(replace(JOB, gpt=replace(CONFIG, n_layer=4)), 8, accumulating=False)
    lean = micro_batch(
        replace(JOB, gpt=replace(CONFIG, n_layer=4), activation_checkpointing=1),
        8,
        accumulating=False,
    )
    assert total(lean[LOSS]) < 0.5 * total(plain[LOSS])


def test_gradients_outlive_a_micro_batch_only_where_there_are_several():
    head = CONFIG.padded_vocab_size * CONFIG.d_model  # the one that this phase makes itself
    assert micro_batch(JOB, 2, accumulating=False)[LOSS]["gradients"] == 4 * head
    assert micro_batch(JOB, 2, accumulating=True)[LOSS]["gradients"] == 4 * N
    assert micro_batch(JOB, 2, accumulating=False)[FORWARD]["gradients"] == 0
    assert micro_batch(JOB, 2, accumulating=True)[FORWARD]["gradients"] == 4 * N


@pytest.mark.parametrize("accumulating", [False, True])
def test_a_deep_network_follows_from_shallow_ones(accumulating):
    job = replace(JOB, gpt=replace(CONFIG, n_layer=7), precision="bf16-mixed")
    trace = Trace(job)
    trace.at(6, accumulating=accumulating)
    for rows in (6, 9):  # the second is measured at one depth only
        guessed = trace.at(rows, accumulating=accumulating)
        for phase, kinds in micro_batch(job, rows, accumulating=accumulating).items():
            held = total(kinds) + guessed[phase]["optimizer"]
            assert total(guessed[phase]) == pytest.approx(held, rel=2e-3), phase
    assert guessed[STEP] == pytest.approx(optimizer_step(job)[STEP], rel=1e-3)


def test_masked_language_models_are_measured_too():
    special = {name: id for id, name in enumerate(SPECIAL)}
    job = replace(JOB, objective=MaskedLM(), special=special)
    assert set(micro_batch(job, 2, accumulating=False)) == {FORWARD, LOSS, BLOCKS, EMBEDDING}


def test_weights_count_in_their_own_type_where_another_is_gathered():
    kinds = micro_batch(replace(JOB, param_dtype=torch.bfloat16), 4, accumulating=False)[FORWARD]
    plain = micro_batch(JOB, 4, accumulating=False)[FORWARD]
    assert kinds["weights"] == plain["weights"] == 4 * N
    assert kinds["activations"] < 0.8 * plain["activations"]
