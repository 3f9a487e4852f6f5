import copy
import math
from itertools import pairwise

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from lit_llm.callbacks import NanGuard, SpikeGuard
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.optim import Muon, WarmupCosine
from lit_llm.training import module as training_module
from lit_llm.training.guards import Opinion
from lit_llm.training.module import LitLLM

T, V = 7, 11


def batch(rows: int, valid: int, seed: int) -> Batch:
    """Rows of one document each, of whose labels only the first `valid` count."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(V, (rows, T), generator=generator)
    labels_BT = torch.randint(V, (rows, T), generator=generator)
    labels_BT.view(-1)[valid:] = IGNORE
    return Batch(
        tokens_BT, labels_BT, torch.zeros_like(tokens_BT), torch.arange(T).expand(rows, T).clone()
    )


class Batches(L.LightningDataModule):
    """Stands in for TextData: micro-batches made by hand."""

    tokenizer = None
    token_bytes_V = torch.ones(V, dtype=torch.int32)
    dp_size, dp_rank = 1, 0

    def __init__(self, batches: list[Batch], accumulate: int) -> None:
        super().__init__()
        self.batches, self.accumulate = batches, accumulate
        self.nominal_tokens_per_step = accumulate * batches[0].tokens_BT.numel()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None, collate_fn=lambda batch: batch)


class Watch(L.Callback):
    """Losses, and copies of weights and optimizer state after each micro-batch."""

    def __init__(self, disturb: bool = False) -> None:
        self.disturb = disturb
        self.losses: list[float] = []
        self.has_gradient: list[tuple[bool, bool]] = []
        self.weights: list[dict] = []
        self.states: list[dict] = []
        self.logged: list[dict[str, float]] = []
        self.hidden: list[bool] = []

    def on_train_start(self, trainer, pl_module):
        self.before = copy.deepcopy(pl_module.gpt.state_dict())

    def on_train_end(self, trainer, pl_module):
        self.logged.append({name: float(x) for name, x in trainer.callback_metrics.items()})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.logged.append({name: float(x) for name, x in trainer.callback_metrics.items()})
        self.has_gradient.append((pl_module.gpt.norm.weight.grad is not None, False))
        if self.disturb:
            torch.rand(5)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        at_the_start, _ = self.has_gradient[-1]
        self.has_gradient[-1] = (at_the_start, pl_module.gpt.norm.weight.grad is not None)
        self.hidden.append(not callable(self.on_after_backward))
        self.losses.append(float(outputs["loss"]))
        self.weights.append(copy.deepcopy(pl_module.gpt.state_dict()))
        self.states.append(copy.deepcopy(trainer.optimizers[0].state_dict()))


@pytest.fixture
def train(tmp_path):
    def train(
        batches: list[Batch],
        accumulate: int,
        optimizer=None,
        disturb: bool = False,
        steps: int | None = None,
        clip: float | None = None,
        dropout: float = 0.0,
        guards: tuple = (),
        log_every: int = 50,
        **settings,
    ) -> Watch:
        config = GPTConfig(
            vocab_size=V, max_seq_len=T, n_layer=2, d_model=12, n_head=3, d_ff=20, dropout=dropout
        )
        watch = Watch(disturb)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            max_steps=steps or len(batches) // accumulate,
            gradient_clip_val=clip,
            log_every_n_steps=log_every,
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )
        sgd = lambda groups: torch.optim.SGD(groups, lr=1.0)  # noqa: E731
        module = LitLLM(config, optimizer=optimizer or sgd, **settings)
        for guard in guards:
            module.guards.add(guard)
        trainer.fit(module, Batches(batches, accumulate))
        return watch

    return train


def test_gradients_are_freed_behind_a_step_and_callbacks_still_see_them(train):
    watch = train([batch(2, 10, seed) for seed in range(4)], accumulate=2)
    # (before a micro-batch, after it): the second one of a step adds to what the first one left
    assert watch.has_gradient == [(False, True), (True, True)] * 2


def test_empty_hooks_are_hidden_while_it_trains_and_freed_memory_is_kept(train, monkeypatch):
    kept = []
    monkeypatch.setattr(training_module, "keep_freed_memory", lambda: kept.append(True))
    watch = train([batch(2, 10, 0)], accumulate=1)
    assert watch.hidden == kept == [True]
    assert callable(watch.on_after_backward)


def test_the_metrics_of_a_log_step_are_of_all_its_tokens_and_of_no_other_step(train):
    batches = [batch(2, 14 - seed, seed) for seed in range(12)]
    watch = train(batches, accumulate=2, log_every=3)
    # what stands there before each micro-batch: the third step logs behind its second one, the 6th
    third, sixth = watch.logged[6], watch.logged[12]
    assert watch.logged == [{}] * 6 + [third] * 6 + [sixth]
    for metrics, losses, tokens in ((third, watch.losses[4:6], 19), (sixth, watch.losses[10:], 7)):
        # what Lightning says of a micro-batch is its sum over 28 tokens, the nominal ones of a step
        loss = sum(losses) * 28 / tokens
        assert metrics["train/loss"] == pytest.approx(loss)
        assert metrics["train/bits_per_byte"] == pytest.approx(loss / math.log(2))  # 1 byte each


def moved(watch: Watch) -> dict[str, torch.Tensor]:
    """The gradient of the only step: what SGD with a rate of 1 subtracted."""
    return {name: watch.before[name] - watch.weights[-1][name] for name in watch.before}


def test_the_gradient_is_that_of_the_mean_over_the_valid_tokens_of_the_step(train):
    # 3 + 14 + 0 + 6 valid tokens: a mean of means would weigh the 3 as much as the 14
    parts = [batch(2, valid, seed) for seed, valid in enumerate((3, 14, 0, 6))]
    whole = Batch(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    cut, at_once = moved(train(parts, 4)), moved(train([whole], 1))
    for name in cut:
        torch.testing.assert_close(cut[name], at_once[name], rtol=1e-5, atol=1e-7)

    # and independently of all our scaling: PyTorch's own mean over one big batch
    config = GPTConfig(vocab_size=V, max_seq_len=T, n_layer=2, d_model=12, n_head=3, d_ff=20)
    gpt = GPT(config)
    init_weights(gpt, 1337, 2)
    logits_BTV = gpt(whole.tokens_BT)
    loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), whole.labels_BT.flatten())
    loss.backward()
    for name, parameter in gpt.named_parameters():
        torch.testing.assert_close(cut[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_clipping_sees_the_gradient_of_the_mean(train):
    parts = [batch(2, valid, seed) for seed, valid in enumerate((3, 14))]
    gradient = moved(train(parts, 2))
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradient.values()]))
    clipped = moved(train(parts, 2, clip=float(norm) / 4))
    for name in gradient:
        torch.testing.assert_close(clipped[name], gradient[name] / 4, rtol=1e-4, atol=1e-7)


def test_a_step_without_a_valid_token_changes_neither_weights_nor_moments(train):
    def adamw(groups):
        return torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)

    # two micro-batches a step: the second step has nothing to learn from
    counts = (5, 2, 0, 0, 4, 0)
    watch = train([batch(2, valid, seed) for seed, valid in enumerate(counts)], 2, adamw)
    first, second, third = (watch.weights[i] for i in (1, 3, 5))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)
    states = [watch.states[i]["state"] for i in (1, 3, 5)]
    for index, moments in states[0].items():
        assert all(torch.equal(moments[name], states[1][index][name]) for name in moments)
        assert float(states[2][index]["step"]) == 2


class Reads(TorchDispatchMode):
    """Counts how often the host asks a device for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def fused_adamw(groups):
    return torch.optim.AdamW(groups, lr=0.1, fused=True)


def test_guards_let_the_host_wait_for_nothing_more(train):
    parts = [batch(2, 14, seed) for seed in range(12)]
    with Reads() as without:
        plain = train(parts, 2, fused_adamw)
    with Reads() as with_guards:
        guarded = train(parts, 2, fused_adamw, guards=(NanGuard(), SpikeGuard("skip")))
    assert with_guards.count == without.count
    last = guarded.weights[-1]
    assert all(torch.equal(last[name], weight) for name, weight in plain.weights[-1].items())


def muon(groups):
    return Muon(groups, lr=0.1)


@pytest.mark.parametrize("optimizer", [fused_adamw, muon])
def test_a_skipped_step_that_nobody_judges_after_is_the_only_one(train, optimizer):
    class Second:
        def judge(self, step, numbers):
            return Opinion(torch.tensor(True) if step == 2 else None, torch.tensor(0.0))

        def learn(self, judged):
            pass

    parts = [batch(2, 14, seed) for seed in range(4)]
    watch = train(parts, 1, optimizer, guards=(Second(),))
    changed = [
        any(not torch.equal(before[name], after[name]) for name in before)
        for before, after in pairwise((watch.before, *watch.weights))
    ]
    assert changed == [True, False, True, True]


def test_guards_judge_the_mean_loss_of_the_step_and_its_gradient_before_clipping(train):
    class Notes:
        def __init__(self):
            self.judged = []

        def judge(self, step, numbers):
            return Opinion(torch.tensor(step == 2), torch.tensor(float(step)))

        def learn(self, judged):
            self.judged.append(judged)

    # 3 + 14 valid tokens in the first step, none in the second, 5 in the third
    parts = [batch(2, valid, seed) for seed, valid in enumerate((3, 14, 0, 0, 5, 0))]
    notes = Notes()
    watch = train(parts, 2, guards=(notes,), clip=1e-3)
    assert [judged.step for judged in notes.judged] == [1, 3]  # nothing to judge in the second
    # Lightning's losses are divided by the 28 nominal tokens of a step.
    assert notes.judged[0].loss == pytest.approx(sum(watch.losses[:2]) * 28 / 17, rel=1e-5)
    assert notes.judged[0].grad_norm > 0.1
    assert all(
        torch.equal(a, b) for a, b in zip(*(w.values() for w in watch.weights[1:4:2]), strict=True)
    )


def test_dropout_is_a_function_of_seed_step_and_micro_batch(train):
    still = lambda groups: torch.optim.SGD(groups, lr=0.0)  # noqa: E731 - weights stay
    same = [batch(2, 14, seed=0)] * 4  # two steps of two micro-batches, all alike
    losses = train(same, 2, still, dropout=0.5, seed=3).losses
    assert len(set(losses)) == 4
    assert train(same, 2, still, dropout=0.5, seed=3, disturb=True).losses == losses
    others = train(same, 2, still, dropout=0.5, seed=4).losses
    assert not set(others) & set(losses)
    assert len(set(train(same, 2, still, seed=3).losses)) == 1  # nothing else is random


def test_activation_checkpointing_changes_no_gradient(train):
    parts = [batch(2, valid, seed) for seed, valid in enumerate((3, 14))]
    plain = moved(train(parts, 2, dropout=0.3))
    kept = moved(train(parts, 2, dropout=0.3, activation_checkpointing=True))
    assert all(torch.equal(plain[name], kept[name]) for name in plain)


def test_a_schedule_without_an_end_is_refused(train):
    with pytest.raises(ValueError, match=r"give --trainer\.max_steps N"):
        train([batch(2, 3, 0)], 1, steps=-1, schedule=WarmupCosine(warmup_steps=1))


def test_a_kind_of_parameter_that_does_not_exist_is_refused(train):
    with pytest.raises(ValueError, match="'embeding' is no kind of parameter"):
        train([batch(2, 3, 0)], 1, groups={"embeding": {"lr": 1.0}})
