"""The same training step beside others': gpt-124m, bfloat16 autocast, fused AdamW, compiled.

    lit-llm           our network under the Trainer, with the callbacks and the loader of a run
    our bare loop     the same network in a loop of PyTorch; the rest is what the Trainer costs
    transformers      LlamaForCausalLM of the same sizes in a bare loop, SDPA
    nanoGPT           its GPT-2 in a bare loop; NANOGPT names a checkout of karpathy/nanoGPT

All take equal rows of random tokens, one document each. Bare loops have their batches on the device
already, which favours them. They take turns, and a ratio is taken within each round.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from benchmarks.measuring import (
    COMPILE,
    DRY,
    SEQ_LEN,
    VOCABULARY,
    Clock,
    device,
    gpu_result,
    network,
    seconds_of,
)
from benchmarks.random_tokens import RandomTokens
from benchmarks.stretches import wait
from lit_llm.callbacks.csv_log import CSVLog
from lit_llm.callbacks.nan_guard import NanGuard
from lit_llm.callbacks.throughput import Throughput
from lit_llm.commands.quiet import quiet_libraries
from lit_llm.data.batch import Batch, collate
from lit_llm.model.config import GPTConfig
from lit_llm.model.init import init_weights
from lit_llm.objective import CausalLM
from lit_llm.optim.groups import parameter_groups
from lit_llm.training.module import LitLLM
from lit_llm.training.parallel import build

ROWS = 2 if DRY else 16
STEPS = 2 if DRY else 20
ROUNDS = 2 if DRY else 5
WARMUP = 1 if DRY else 5  # steps before the clock starts, in each turn; compilation has its own
LR, BETAS, DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0

Turn = Callable[[], float]
"""Trains WARMUP steps, then STEPS; seconds that those took."""


def main() -> None:
    clock = Clock()
    quiet_libraries()
    columns = ("name", "tokens_per_second", "ratio", "least", "most")
    result = gpu_result("peers", columns)
    result.settings(network="gpt-124m", rows=ROWS, seq_len=SEQ_LEN, steps=STEPS, compiled=COMPILE)
    turns: dict[str, Turn] = {}
    for name, prepare in CONTENDERS.items():
        try:
            turns[name] = prepare()
            turns[name]()  # compiles
        except NotHere as reason:
            result.not_run(name, str(reason))
        except Exception as error:  # a peer that breaks must not hide the others
            if name == OURS:
                raise
            turns.pop(name, None)
            result.not_run(name, f"{type(error).__name__}: {str(error)[:200]}")
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(ROUNDS):
        if clock.left < 30 and number:
            result.not_run(f"round {number + 1}", "the time is up")
            continue
        for name, turn in turns.items():
            seconds[name].append(turn())
    for name, times in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(times, seconds[OURS], strict=True)]
        result.add(
            name=name,
            tokens_per_second=STEPS * ROWS * SEQ_LEN / statistics.median(times),
            ratio=statistics.median(ratios),
            least=min(ratios),
            most=max(ratios),
            seconds=times,
        )
    result.show()
    print("ratio: how many times as fast lit-llm is as the row; least and most over the rounds")


class NotHere(Exception):
    """A peer that is not installed."""


# -- ours ------------------------------------------------------------------------------------------


def prepare_ours() -> Turn:
    """Our network under the Trainer; each turn is a `fit` of the same module."""
    module = LitLLM(network(), optimizer=_adamw, compile=COMPILE)

    def turn() -> float:
        with tempfile.TemporaryDirectory() as folder:
            lap = Lap()
            trainer = L.Trainer(
                accelerator=device().type,
                devices=1,
                precision="bf16-mixed",
                max_steps=WARMUP + STEPS,
                max_epochs=-1,
                gradient_clip_val=CLIP,
                log_every_n_steps=10,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
                default_root_dir=folder,
                logger=[CSVLog(folder)],
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                callbacks=[Throughput(), NanGuard(), lap],
            )
            trainer.fit(module, RandomTokens(VOCABULARY, SEQ_LEN, ROWS, documents=1))
            return lap.seconds

    return turn


class Lap(L.Callback):
    """Times the steps after the warm-up."""

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        if trainer.global_step == WARMUP:
            wait(device())
            self._before = perf_counter()
        elif trainer.global_step == WARMUP + STEPS:
            wait(device())
            self.seconds = perf_counter() - self._before


def prepare_our_loop() -> Turn:
    """Our network, loss and parameter groups in a loop that does nothing else."""
    config = network()
    gpt = build(config, compile=COMPILE).to(device())
    init_weights(gpt, 1337, config.n_layer)
    objective = CausalLM()

    def loss_of(batch: Batch) -> Tensor:
        sums = objective(gpt, batch)
        return sums.loss / sums.tokens

    return _loop(gpt, _adamw(parameter_groups(gpt)), loss_of)


# -- peers -----------------------------------------------------------------------------------------


def prepare_transformers() -> Turn:
    """Hugging Face's Llama of the same sizes.

    Raises:
        NotHere: transformers is not installed.
    """
    try:
        from transformers import LlamaForCausalLM
    except ImportError:
        raise NotHere("transformers is not installed") from None
    llama: Any = LlamaForCausalLM(llama_config(network()))
    llama.to(device())
    forward = torch.compile(llama) if COMPILE else llama

    def loss_of(batch: Batch) -> Tensor:
        # It shifts labels itself: it is given the tokens.
        return forward(input_ids=batch.tokens_BT, labels=batch.tokens_BT, use_cache=False).loss

    return _loop(llama, _adamw([{"params": list(llama.parameters())}]), loss_of)


def llama_config(gpt: GPTConfig) -> Any:
    """The same network as transformers describes it."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=gpt.padded_vocab_size,
        hidden_size=gpt.d_model,
        intermediate_size=gpt.ff_dim,
        num_hidden_layers=gpt.n_layer,
        num_attention_heads=gpt.n_head,
        num_key_value_heads=gpt.kv_heads,
        max_position_embeddings=gpt.max_seq_len,
        rms_norm_eps=gpt.norm_eps,
        tie_word_embeddings=gpt.tie_embeddings,
        attn_implementation="sdpa",  # type: ignore[call-arg]
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def prepare_nanogpt() -> Turn:
    """The GPT-2 of nanoGPT: LayerNorm, GELU, learned positions, so not quite the same network.

    Raises:
        NotHere: NANOGPT names no checkout.
    """
    path = Path(os.environ.get("NANOGPT", ""), "model.py")
    if "NANOGPT" not in os.environ or not path.exists():
        raise NotHere("NANOGPT names no checkout of nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["nanogpt_model"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gpt = network()
    sizes = {"n_layer": gpt.n_layer, "n_head": gpt.n_head, "n_embd": gpt.d_model}
    config = module.GPTConfig(
        block_size=SEQ_LEN, vocab_size=gpt.padded_vocab_size, dropout=0.0, bias=False, **sizes
    )
    model = module.GPT(config).to(device())
    forward = torch.compile(model) if COMPILE else model
    optimizer = model.configure_optimizers(DECAY, LR, BETAS, device().type)
    return _loop(model, optimizer, lambda batch: forward(batch.tokens_BT, batch.labels_BT)[1])


# -- what all share --------------------------------------------------------------------------------


def _adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)


def _loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[Batch], Tensor]
) -> Turn:
    """A bare training loop."""
    model.train()
    batches = _batches()

    def train(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(device().type, torch.bfloat16):
                loss = loss_of(next(batches))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def turn() -> float:
        train(WARMUP)
        return seconds_of(lambda: train(STEPS), device())

    return turn


def _batches() -> Iterator[Batch]:
    """A few batches on the device, again and again."""
    rows = RandomTokens(VOCABULARY, SEQ_LEN, ROWS, documents=1)._rows(validation=False)[0]
    batches = [collate([rows[n * ROWS + i] for i in range(ROWS)]) for n in range(4)]
    return cycle([Batch(*(field.to(device()) for field in batch)) for batch in batches])


OURS = "lit-llm"
CONTENDERS: dict[str, Callable[[], Turn]] = {
    OURS: prepare_ours,
    "our bare loop": prepare_our_loop,
    "transformers": prepare_transformers,
    "nanoGPT": prepare_nanogpt,
}

if __name__ == "__main__":
    main()
