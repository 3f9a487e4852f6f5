"""What only a GPU can show; `benchmarks/gpu.sh parity` runs these, see docs/gpu.md.

With GPU_DRY_RUN=1 they run on the CPU, where they show that the tests themselves are in order.
"""

import csv
import json
import math
import os
import traceback
import warnings
from functools import partial
from pathlib import Path
from shutil import copytree

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from lit_llm.callbacks.nan_guard import NanGuard
from lit_llm.callbacks.throughput import Throughput
from lit_llm.checkpoint.bundle import load_model
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.data.loader import batch_loader
from lit_llm.generation import Sampling, generate
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.objective import CausalLM
from lit_llm.training.module import LitLLM
from lit_llm.training.parallel import build
from lit_llm.training.strategy import Sharded

# Read when the first matrix product runs; deterministic runs need it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

GPU = torch.cuda.is_available()
DRY = os.environ.get("GPU_DRY_RUN") == "1" and not GPU
ACCELERATOR = "gpu" if GPU else "cpu"
DEVICE = torch.device("cuda" if GPU else "cpu")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (GPU or DRY), reason="PyTorch sees no GPU here: see docs/gpu.md"),
]
needs_gpu = pytest.mark.skipif(not GPU, reason="means nothing on a CPU")

ROOT = Path(__file__).parents[1]
OURS = str(ROOT / "lit_llm")
T, V, ROWS = 64, 96, 8
CONFIG = GPTConfig(
    vocab_size=V, max_seq_len=T, n_layer=2, d_model=64, n_head=4, n_kv_head=2, qk_norm=True
)


def rows(seed: int) -> Batch:
    """Rows of two documents each; some labels do not count."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(V, (ROWS, T), generator=generator)
    labels_BT = tokens_BT.roll(-1, 1)
    labels_BT[:, T // 2 - 1 :: T // 2] = IGNORE
    place_T = torch.arange(T)
    documents_BT = (place_T // (T // 2)).expand(ROWS, T).clone()
    return Batch(tokens_BT, labels_BT, documents_BT, (place_T % (T // 2)).expand(ROWS, T).clone())


class Batches(L.LightningDataModule):
    """Stands in for TextData: the same rows at every step, or others."""

    tokenizer = None
    token_bytes_V = torch.ones(V, dtype=torch.int32)
    dp_size, dp_rank, accumulate, seq_len = 1, 0, 1, T
    nominal_tokens_per_step = ROWS * T

    def __init__(self, same: bool = False) -> None:
        super().__init__()
        self.batches = [rows(0 if same else seed) for seed in range(8)]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None, collate_fn=lambda b: b, pin_memory=GPU)


class Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].detach().clone())  # not read: that would wait


adamw = partial(torch.optim.AdamW, lr=3e-3, fused=True)


def train(
    steps: int = 8,
    precision: str = "32-true",
    strategy="auto",
    optimizer=adamw,
    same: bool = False,
    callbacks=(),
    **settings,
) -> tuple[list[float], LitLLM, L.Trainer]:
    """Losses of a short training, its module and its trainer."""
    losses = Losses()
    trainer = L.Trainer(
        accelerator=ACCELERATOR,
        devices=1,
        precision=precision,
        strategy=strategy,
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        log_every_n_steps=100,
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses, *callbacks],
    )
    module = LitLLM(CONFIG, optimizer=optimizer, **settings)
    trainer.fit(module, Batches(same))
    return [float(loss) for loss in losses.values], module, trainer


@pytest.fixture(autouse=True)
def _float32_is_float32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def _one_process_group():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def fit(tiny_fit, tmp_path_factory):
    """Fits the tiny quickstart, or another recipe, on the device; gives the run's folder."""
    runs = tmp_path_factory.mktemp("gpu-runs")

    def fit(name: str, *arguments: str, recipe: str = "quickstart/pretrain.yaml") -> Path:
        common = [f"--run={name}", f"--trainer.accelerator={ACCELERATOR}"]
        finished = tiny_fit(recipe, runs, *common, *arguments)
        torch.use_deterministic_algorithms(False)
        assert finished.code == 0, finished.err
        return runs / name

    return fit


@pytest.fixture(scope="module")
def saved(fit):
    """A run of six steps with dropout that was saved after three of them."""
    return fit("saved", *STEPS)


STEPS = ("-c", str(ROOT / "configs/overlays/deterministic.yaml"), "--model.gpt.dropout=0.2")
STEPS += ("--checkpoint.every_n_steps=3", "--checkpoint.keep_last=null")


def metrics(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


# -- the arithmetic --------------------------------------------------------------------------------


def gradients(device: torch.device) -> tuple[float, torch.Tensor]:
    gpt = GPT(CONFIG)
    init_weights(gpt, 1, CONFIG.n_layer)
    gpt.to(device)
    sums = CausalLM()(gpt, Batch(*(field.to(device) for field in rows(0))))
    loss = sums.loss / sums.tokens
    loss.backward()
    grads = [p.grad.flatten().double().cpu() for p in gpt.parameters() if p.grad is not None]
    assert len(grads) == len(list(gpt.parameters()))
    return float(loss.detach()), torch.cat(grads)


def test_loss_and_gradients_in_float32_are_those_of_the_cpu():
    (loss, gradient), (expected_loss, expected) = gradients(DEVICE), gradients(torch.device("cpu"))
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert (gradient - expected).norm() / expected.norm() < 1e-5


def test_greedy_text_is_that_of_the_cpu():
    gpt = GPT(CONFIG)
    init_weights(gpt, 2, CONFIG.n_layer)
    prompts, sampling = [[1, 2, 3], [4, 5, 6, 7, 8]], Sampling(max_new_tokens=20)
    expected = [row.ids for row in generate(gpt, prompts, sampling)]
    assert [row.ids for row in generate(gpt.to(DEVICE), prompts, sampling)] == expected


# -- precisions ------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_documents_kept_apart_by_a_kernel_train_as_those_kept_apart_by_a_mask(compiled):
    found = []
    for expects in (False, True):
        gpt = build(CONFIG, compile=compiled).to(DEVICE)
        init_weights(gpt, 7, CONFIG.n_layer)
        objective = CausalLM()
        if expects:
            objective.expect(rows(0))
        with torch.autocast(DEVICE.type, torch.bfloat16):
            sums = objective(gpt, Batch(*(field.to(DEVICE) for field in rows(0))))
        sums.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in gpt.parameters()])
        found.append((float(sums.loss / sums.tokens), gradient))
    (loss, gradient), (kernel_loss, kernel_gradient) = found
    assert kernel_loss == pytest.approx(loss, rel=1e-3)
    assert (kernel_gradient - gradient).norm() < 0.02 * gradient.norm()


@needs_gpu
def test_batches_with_other_documents_compile_nothing_anew():
    gpt = build(CONFIG, compile=True).to(DEVICE)
    init_weights(gpt, 7, CONFIG.n_layer)
    objective = CausalLM()
    for documents in (2, 3, 5, 7):
        batch = rows(documents)
        documents_BT = (torch.arange(T) * documents // T).expand(ROWS, T).clone()
        batch = batch._replace(documents_BT=documents_BT)
        with torch._dynamo.config.patch(error_on_recompile=documents > 2):
            objective.expect(batch)
            with torch.autocast(DEVICE.type, torch.bfloat16):
                objective(gpt, Batch(*(field.to(DEVICE) for field in batch))).loss.backward()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_the_same_rows_again_and_again_are_learned(precision):
    losses, module, _ = train(60, precision, same=True)
    assert losses[0] == pytest.approx(math.log(V), abs=0.3)
    assert losses[-1] < 0.7 * losses[0]
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {p.dtype for p in module.parameters()} == {dtype}


@needs_gpu
def test_16_mixed_trains_with_a_scaled_loss():
    losses, _, trainer = train(60, "16-mixed", same=True, optimizer=partial(adamw, fused=False))
    assert trainer.precision_plugin.scaler.get_scale() >= 1
    assert losses[-1] < 0.7 * losses[0]


@needs_gpu
def test_16_mixed_refuses_an_optimizer_that_unscales_by_itself():
    with pytest.raises(ValueError, match=r"give --model.optimizer.fused false"):
        train(1, "16-mixed")


@pytest.mark.skipif(DRY and "GPU_DRY_RUN_COMPILE" not in os.environ, reason="a minute on a CPU")
def test_compiled_blocks_train_as_eager_ones():
    eager, compiled = train(8)[0], train(8, compile=True)[0]
    assert compiled == pytest.approx(eager, abs=1e-4)


def test_checkpointed_activations_train_as_kept_ones():
    kept, again = train(8)[0], train(8, activation_checkpointing=1)[0]
    assert again == pytest.approx(kept, abs=1e-4)


@pytest.mark.usefixtures("_one_process_group")
def test_fsdp_on_one_device_trains_as_no_strategy():
    alone, sharded = train(8)[0], train(8, strategy=Sharded())[0]
    assert sharded == pytest.approx(alone, abs=1e-4)


# -- data and waiting ------------------------------------------------------------------------------


def test_batches_come_in_pinned_memory():
    class Watched(LitLLM):
        pinned: list[bool] = []

        def on_before_batch_transfer(self, batch, dataloader_idx):
            self.pinned += [field.is_pinned() for field in batch]
            return super().on_before_batch_transfer(batch, dataloader_idx)

    module = Watched(CONFIG, optimizer=adamw)
    trainer = L.Trainer(
        accelerator=ACCELERATOR,
        devices=1,
        max_steps=2,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, Batches())
    assert module.pinned
    assert all(pinned is GPU for pinned in module.pinned)


def test_our_loader_pins_what_it_collates():
    dataset = [Batch(*(field[i] for field in rows(0))) for i in range(ROWS)]
    loader = batch_loader(dataset, [[0, 1], [2, 3]], pin_memory=GPU)
    batch = next(iter(loader))
    assert type(batch) is Batch
    assert [field.is_pinned() for field in batch] == [GPU] * 4
    assert torch.equal(batch.tokens_BT.to(DEVICE).cpu(), rows(0).tokens_BT[:2])


class Waits(L.Callback):
    """The stacks of all waits for the device between two steps."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.stacks: list[traceback.StackSummary] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.first:
            self._show, warnings.showwarning = warnings.showwarning, self._see
            warnings.filterwarnings("always", message=".*synchronizing CUDA operation.*")
            _sync_debug("warn")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.last:
            _sync_debug("default")
            warnings.showwarning = self._show

    def _see(self, message, *arguments, **keywords):
        if "synchronizing CUDA operation" in str(message):
            self.stacks.append(traceback.extract_stack()[:-1])
        else:
            self._show(message, *arguments, **keywords)


def _sync_debug(mode: str) -> None:
    if GPU:
        torch.cuda.set_sync_debug_mode(mode)


def culprit(stack: traceback.StackSummary) -> str:
    """Whose line waits: the innermost one that is ours or Lightning's."""
    for frame in reversed(stack):
        if frame.filename.startswith(OURS) or "/lightning/" in frame.filename:
            return f"{frame.filename}:{frame.lineno} {frame.line}"
    return "unknown"


def test_no_line_of_ours_waits_for_the_device_between_log_steps(record_property):
    waits = Waits(5, 9)
    with warnings.catch_warnings():
        train(12, "bf16-mixed", callbacks=[Throughput(), NanGuard(), waits])
    found = sorted({culprit(stack) for stack in waits.stacks})
    record_property("waits", json.dumps(found))
    print("\n".join(found))
    assert not [line for line in found if line.startswith(OURS)]


@needs_gpu
def test_a_wait_for_the_device_would_be_seen():
    waits = Waits(1, 2)

    class Impatient(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            float(next(pl_module.parameters()).sum())

    with warnings.catch_warnings():
        train(4, callbacks=[waits, Impatient()])
    assert waits.stacks


# -- runs ------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_same_bits(fit, saved):
    resumed = fit("resumed", *STEPS, f"--ckpt_path={saved / 'step-00000003'}")
    ends = [run / "step-00000006" for run in (saved, resumed)]
    weights = [load_file(end / "model.safetensors") for end in ends]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    states = [torch.load(end / "training.ckpt", weights_only=True) for end in ends]
    moments = [state["optimizer_states"][0]["state"] for state in states]
    for index, moment in moments[0].items():
        assert all(torch.equal(moment[name], moments[1][index][name]) for name in moment)


def test_a_checkpoint_of_the_device_loads_on_the_cpu(saved):
    checkpoint, tokens_BT = saved / "step-00000006", torch.arange(40).view(2, 20)
    (on_cpu, _), (on_device, _) = load_model(checkpoint), load_model(checkpoint, device=DEVICE)
    with torch.inference_mode():
        logits_BTV, expected_BTV = on_device(tokens_BT.to(DEVICE)).cpu(), on_cpu(tokens_BT)
    torch.testing.assert_close(logits_BTV, expected_BTV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("accelerator", sorted({"cpu", ACCELERATOR}))
def test_predict_answers_from_a_checkpoint_of_the_device(accelerator, saved, cli, tmp_path):
    output = tmp_path / "answers.jsonl"
    finished = cli(
        *("predict", f"--ckpt_path={saved}", "--data.prompts", '["Fred is"]'),
        *(f"--trainer.accelerator={accelerator}", f"--output={output}"),
        *("--sampling.max_new_tokens=8",),
    )
    assert finished.code == 0, finished.err
    assert json.loads(output.read_text())["prompt"] == "Fred is"


def test_a_checkpoint_of_the_device_goes_on_on_the_cpu(saved, fit, tmp_path):
    copy = copytree(saved / "step-00000003", tmp_path / "step-00000003")
    run = fit("on-cpu", *STEPS, f"--ckpt_path={copy}", "--trainer.accelerator=cpu")
    assert metrics(run, "train/loss") == pytest.approx(metrics(saved, "train/loss")[1:], rel=0.05)


def test_samples_and_the_peak_of_memory_are_written(fit):
    torch.cuda.reset_peak_memory_stats() if GPU else None
    run = fit("samples", "--trainer.precision=bf16-mixed", "--model.compile=false")
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert samples
    assert {row["step"] for row in samples} == {3, 6}
    peaks = metrics(run, "speed/peak_memory_gb")
    assert min(peaks) > 0
    if GPU:
        assert max(peaks) <= torch.cuda.max_memory_allocated() / 1e9


def test_a_masked_language_model_trains_on_the_device(fit):
    run = fit("masked", recipe="bert-tiny/pretrain.yaml")
    assert all(map(math.isfinite, metrics(run, "val/loss")))
