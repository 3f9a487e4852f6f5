"""The same training step beside others': gpt-124m, bfloat16 autocast, fused AdamW, compiled.

    lit-llm           our network under the Trainer, with the callbacks and the loader of a run
    our bare loop     the same network in a loop of PyTorch; the rest is what the Trainer costs
    nanoGPT           its GPT-2; NANOGPT names a checkout of karpathy/nanoGPT
    litgpt            its network of the same sizes
    transformers      LlamaForCausalLM of the same sizes, SDPA

All take equal rows of random tokens, one document each. Bare loops, in which the peers run too,
have their batches on the device already, which favours them. They take turns, and a ratio is taken
within each round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from time import perf_counter
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from benchmarks.gpu_contenders import CLIP, Contender, adamw, peer
from benchmarks.measuring import (
    COMPILE,
    DRY,
    SEQ_LEN,
    VOCABULARY,
    Clock,
    all_met,
    device,
    gpu_result,
    network,
    seconds_of,
)
from benchmarks.random_tokens import RandomTokens
from benchmarks.rounds import NotRun, ratios
from benchmarks.stretches import wait
from lit_llm.callbacks.csv_log import CSVLog
from lit_llm.callbacks.nan_guard import NanGuard
from lit_llm.callbacks.throughput import Throughput
from lit_llm.commands.quiet import quiet_libraries
from lit_llm.data.batch import Batch, collate
from lit_llm.model.init import init_weights
from lit_llm.objective import CausalLM
from lit_llm.optim.groups import parameter_groups
from lit_llm.training.module import LitLLM
from lit_llm.training.parallel import build

ROWS = 2 if DRY else 32
STEPS = 2 if DRY else 20
ROUNDS = 2 if DRY else 5
WARMUP = 1 if DRY else 5  # steps before the clock starts, in each turn; compilation has its own

Turn = Callable[[], float]
"""Trains WARMUP steps, then STEPS; tokens per second of those."""


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
        except NotRun as reason:
            result.not_run(name, str(reason))
        except Exception as error:  # a peer that breaks must not hide the others
            if name == OURS:
                raise
            turns.pop(name, None)
            result.not_run(name, f"{type(error).__name__}: {str(error)[:200]}")
    speeds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(ROUNDS):
        if clock.left < 30 and number:
            result.not_run(f"round {number + 1}", "the time is up")
            continue
        for name, turn in turns.items():
            speeds[name].append(turn())
    for name, found in speeds.items():
        ours_over = ratios(speeds[OURS], found)
        result.add(
            name=name,
            tokens_per_second=statistics.median(found),
            ratio=statistics.median(ours_over),
            least=min(ours_over),
            most=max(ours_over),
            rounds=found,
        )
    peers = [found for name, found in speeds.items() if name not in (OURS, OUR_LOOP)]
    if len(peers) == len(CONTENDERS) - 2:  # with one missing, nobody knows who is the best
        best = [max(round) for round in zip(*peers, strict=True)]
        result.bar("best-peer", ratios(speeds[OURS], best))
    result.bar("trainer", [r - 1 for r in ratios(speeds[OUR_LOOP], speeds[OURS])])
    result.show()
    print("ratio: how many times as fast lit-llm is as the row; least and most over the rounds")
    sys.exit(0 if all_met(result) else 1)


# -- ours ------------------------------------------------------------------------------------------


def under_the_trainer() -> Turn:
    """Our network under the Trainer; each turn is a `fit` of the same module."""
    module = LitLLM(network(), optimizer=adamw, compile=COMPILE)

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
            return _speed(lap.seconds)

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


def ours() -> Contender:
    """Our network, loss and parameter groups."""
    config = network()
    gpt = build(config, compile=COMPILE).to(device())
    init_weights(gpt, 1337, config.n_layer)
    objective = CausalLM()
    on_the_cpu = _batch(0)

    def loss_of(batch: Batch) -> Tensor:
        objective.expect(on_the_cpu)  # as the Trainer's module does; all have as many documents
        sums = objective(gpt, batch)
        return sums.loss / sums.tokens

    return Contender(gpt, adamw(parameter_groups(gpt)), loss_of)


# -- what all share --------------------------------------------------------------------------------


def in_a_loop(make: Callable[[], Contender]) -> Callable[[], Turn]:
    """A bare training loop around a network."""

    def prepare() -> Turn:
        model, optimizer, loss_of = make()
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
            return _speed(seconds_of(lambda: train(STEPS), device()))

        return turn

    return prepare


def _batches() -> Iterator[Batch]:
    """A few batches on the device, again and again."""
    batches = [_batch(number) for number in range(4)]
    return cycle([Batch(*(field.to(device()) for field in batch)) for batch in batches])


def _batch(number: int) -> Batch:
    rows = RandomTokens(VOCABULARY, SEQ_LEN, ROWS, documents=1)._rows(validation=False)[0]
    return collate([rows[number * ROWS + i] for i in range(ROWS)])


def _speed(seconds: float) -> float:
    return STEPS * ROWS * SEQ_LEN / seconds


OURS, OUR_LOOP = "lit-llm", "our bare loop"
CONTENDERS: dict[str, Callable[[], Turn]] = {
    OURS: under_the_trainer,
    OUR_LOOP: in_a_loop(ours),
    "nanoGPT": in_a_loop(lambda: peer("nanogpt")),
    "litgpt": in_a_loop(lambda: peer("litgpt")),
    "transformers": in_a_loop(lambda: peer("transformers")),
}

if __name__ == "__main__":
    main()
