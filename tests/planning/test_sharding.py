from dataclasses import replace

import pytest
import torch
from torch.optim import AdamW

from lit_llm.model.config import GPTConfig
from lit_llm.model.lora import Lora
from lit_llm.objective import CausalLM
from lit_llm.planning.sharding import Spread, local_job, per_device
from lit_llm.planning.trace import BLOCKS, FORWARD, STEP, Job, Trace

T, D = 16, 24
CONFIG = GPTConfig(
    vocab_size=128, max_seq_len=T, n_layer=3, d_model=D, n_head=6, n_kv_head=2, d_ff=40
)
JOB = Job(gpt=CONFIG, objective=CausalLM(), optimizer=AdamW, seq_len=T)
BLOCK = 2 * D * D + 2 * D * 8 + 3 * D * 40 + 2 * D  # q, o; k, v with 2 heads of 4; MLP; norms
ROOT = 2 * 128 * D + D  # embedding and head; the last norm
N = 3 * BLOCK + ROOT
ROWS = 4


def held(spread: Spread, job: Job = JOB, accumulating: bool = False):
    phases = Trace(local_job(job, spread.tensor)).at(ROWS, accumulating=accumulating)
    return per_device(phases, job, spread, ROWS, accumulating=accumulating)


def test_one_device_holds_what_was_measured():
    alone = held(Spread())[STEP]
    assert alone["weights"] == alone["gradients"] == 4 * N
    assert alone["communication"] == 0


def test_ddp_adds_a_bucket_for_every_gradient():
    alone, ddp = held(Spread()), held(Spread(strategy="ddp", replicate=4))
    for phase, kinds in ddp.items():
        assert kinds == {**alone[phase], "communication": 4 * N}


def test_of_a_lora_run_gradients_of_adapters_alone_are_sent():
    job = replace(JOB, lora=Lora(rank=3, targets=("q_proj",)))
    adapters = 3 * (D + D)  # of a block
    ddp = held(Spread(strategy="ddp", replicate=4), job)
    assert ddp[FORWARD]["communication"] == 4 * 3 * adapters
    shared = held(Spread(strategy="sharded", shard=4), job)
    gathered = ROOT + 2 * (BLOCK + adapters)
    assert shared[FORWARD]["communication"] == 4 * gathered + (4 + 4) * adapters


@pytest.mark.parametrize("replicate", [1, 3])
def test_fsdp_divides_what_is_kept_by_the_devices_that_share_it(replicate):
    alone, shared = held(Spread()), held(Spread(strategy="sharded", replicate=replicate, shard=4))
    for kind in ("weights", "gradients", "optimizer"):
        assert shared[STEP][kind] == alone[STEP][kind] / 4 > 0
        assert shared[FORWARD][kind] == alone[FORWARD][kind] / 4
    assert shared[FORWARD]["activations"] == alone[FORWARD]["activations"]
    # gathered: embedding, head, norm, the block in use and the next one; one part's gradients
    # whole, and once more to be sent
    largest = max(ROOT, BLOCK)
    assert shared[FORWARD]["communication"] == 4 * (ROOT + 2 * BLOCK) + (4 + 4) * largest
    assert shared[STEP]["communication"] == 0


def test_accumulated_gradients_stay_whole_unless_each_micro_batch_reduces_them():
    spread = Spread(strategy="sharded", shard=4)
    whole = held(spread, accumulating=True)
    assert whole[FORWARD]["gradients"] == 4 * N
    assert whole[STEP]["gradients"] == 4 * N / 4
    reduced = held(replace(spread, reduce_each_micro_batch=True), accumulating=True)
    assert reduced[FORWARD]["gradients"] == 4 * N / 4


def test_param_dtype_gathers_half_and_keeps_no_copies():
    spread = Spread(strategy="sharded", shard=4)
    mixed = held(spread, replace(JOB, precision="bf16-mixed"))[FORWARD]
    gathered = held(spread, replace(JOB, param_dtype=torch.bfloat16))[FORWARD]
    assert (mixed["copies"] > 0, gathered["copies"]) == (True, 0)
    assert gathered["weights"] == mixed["weights"] == N
    largest = max(ROOT, BLOCK)
    assert gathered["communication"] == 2 * (ROOT + 2 * BLOCK) + (2 + 4) * largest


def test_tensor_parallelism_divides_matrices_heads_and_logits():
    alone, pair = held(Spread())[BLOCKS], held(Spread(strategy="sharded", tensor=2))[BLOCKS]
    vectors = 7 * D  # every device holds the norms
    assert pair["weights"] == 4 * ((N - vectors) / 2 + vectors)
    assert 0.5 * alone["activations"] < pair["activations"] < 0.8 * alone["activations"]
    logits = held(Spread())[FORWARD]["logits"], held(Spread(strategy="sharded", tensor=2))
    assert logits[1][FORWARD]["logits"] == logits[0] / 2


def test_a_network_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="n_head=6 does not split over tensor_parallel=4 devices"):
        held(Spread(strategy="sharded", tensor=4))
