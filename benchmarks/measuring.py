"""What the parts of benchmarks/gpu.sh share: device, network, runs of cli.py, clocks."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml

from benchmarks.result import ROOT, Result, read_bars
from benchmarks.rounds import last_words
from benchmarks.stretches import wait
from lit_llm.model.config import GPTConfig
from lit_llm.planning.peak_flops import device_name, peak_bf16_flops

DRY = os.environ.get("GPU_DRY_RUN") == "1"
COMPILE = not DRY or os.environ.get("GPU_DRY_RUN_COMPILE") == "1"  # takes half a minute on a CPU
VOCABULARY = 200 if DRY else 50_257  # GPT-2's
SEQ_LEN = 32 if DRY else 1024
TINY = ROOT / "benchmarks/dry-run.yaml"


# -- the machine -----------------------------------------------------------------------------------


def device() -> torch.device:
    """The GPU; the CPU in a dry run.

    Raises:
        SystemExit: there is no GPU, and it is no dry run.
    """
    if DRY:
        torch.set_num_threads(1)
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print("error: PyTorch sees no GPU here; GPU_DRY_RUN=1 tries it on the CPU", file=sys.stderr)
        sys.exit(2)
    return torch.device("cuda")


def gpu_result(part: str, columns: Sequence[str]) -> Result:
    """Where the rows of a part go."""
    return Result(f"gpu-{part}", columns, device(), DRY)


def all_met(result: Result) -> bool:
    """Print how many of a part's bars are met; whether all are. A dry run measures nothing."""
    bars = read_bars().get(result.path.stem, {})
    found = result.values["bars"]
    for name in sorted(bars.keys() - found.keys()):
        print(f"{name}: not run: NOT MET")
    met = sum(found[name]["met"] for name in bars if name in found)
    print(f"{met} of {len(bars)} bars met" + ", but this measured nothing" * DRY)
    return DRY or met == len(bars)


def mfu(tokens_per_second: float, flops_per_token: int) -> float | None:
    """Share of the device's bfloat16 peak; None where that is not known."""
    peak = peak_bf16_flops(device_name(device()))
    return None if peak is None else tokens_per_second * flops_per_token / peak


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "OutOfMemoryError" in str(error)


# -- the network -----------------------------------------------------------------------------------


def network(name: str = "gpt-124m", seq_len: int = SEQ_LEN) -> GPTConfig:
    """A network of configs/model/ with GPT-2's vocabulary; a tiny one in a dry run."""
    path = TINY if DRY else ROOT / f"configs/model/{name}.yaml"
    sizes = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["gpt"]
    return GPTConfig(**sizes, vocab_size=VOCABULARY, max_seq_len=seq_len)


# -- runs of cli.py --------------------------------------------------------------------------------


class Failed(Exception):
    """A command that ended with an error; its last words."""


def speed_run(name: str, *files: str) -> list[str]:
    """Arguments of `fit` and `plan` for a network on random tokens.

    Args:
        name: of the network, in configs/model/
        files: further ones, such as configs/precision/bf16-mixed.yaml
    """
    first = (f"configs/model/{name}.yaml", "configs/optim/adamw.yaml", "configs/trainer/gpu.yaml")
    all_files = [*first, "benchmarks/random-tokens.yaml", *files]
    all_files += [str(TINY)] * DRY
    return [part for file in all_files for part in ("-c", str(ROOT / file))]


def fit(
    arguments: Sequence[str], *, steps: tuple[int, int, int], seconds: float, **env: str
) -> Any:
    """Train for some steps in a process of its own; what `Stretches` measured there.

    Args:
        arguments: of `fit`
        steps: of the warm-up, of each stretch, and the number of stretches
        seconds: after which the process is stopped
        env: environment variables for it

    Raises:
        Failed: it did not end well.
    """
    warmup, length, stretches = steps
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        callback = {
            "class_path": "benchmarks.stretches.Stretches",
            "init_args": {
                "path": str(result),
                "warmup": warmup,
                "steps": length,
                "stretches": stretches,
            },
        }
        run(
            [
                *("cli.py", "fit", *arguments, f"--runs_dir={folder}", "--run=measured"),
                f"--trainer.fast_dev_run={warmup + stretches * length}",
                f"--trainer.callbacks={json.dumps([callback])}",
                "--samples.n_prompts=0",
            ],
            seconds=seconds,
            **env,
        )
        return json.loads(result.read_text())


def run(arguments: Sequence[str], *, seconds: float, **env: str) -> str:
    """Run Python with these arguments in the repository; what it prints on stdout.

    Raises:
        Failed: another exit code than 0, or the time is up.
    """
    threads = {"OMP_NUM_THREADS": "1"} if DRY else {}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **threads, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that it can be stopped with the processes that it starts
    )
    try:
        out, err = process.communicate(timeout=max(1.0, seconds))
    except BaseException as stop:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(stop, subprocess.TimeoutExpired):
            raise Failed(f"was stopped after {seconds:.0f} s") from None
        raise
    if process.returncode:
        raise Failed(last_words(err or out))
    return out


# -- clocks ----------------------------------------------------------------------------------------


class Clock:
    """How much of a part's time is left."""

    def __init__(self) -> None:
        self._end = perf_counter() + float(os.environ.get("GPU_SECONDS", 450))

    @property
    def left(self) -> float:
        return self._end - perf_counter()


def seconds_of(call: Callable[[], object], where: torch.device) -> float:
    """How long a call takes, the device's work included."""
    wait(where)
    before = perf_counter()
    call()
    wait(where)
    return perf_counter() - before


def copy_bandwidth(where: torch.device) -> float:
    """Bytes per second that a large copy on the device moves, read and written ones counted."""
    size = 2**24 if DRY else 2**32
    source, target = (torch.empty(size, dtype=torch.uint8, device=where) for _ in range(2))
    times = [seconds_of(lambda: target.copy_(source), where) for _ in range(8)]
    return 2 * size / statistics.median(times[3:])
