"""Does a GPU compute what the CPU does, in the memory that was planned?

1. tests/test_gpu.py
2. `cli.py fit` of three networks, whose peak of memory is held against what `cli.py plan` says
3. `cli.py parity`: the same training in every precision and strategy that one device has
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.measuring import (
    DRY,
    ROOT,
    VOCABULARY,
    Clock,
    Failed,
    fit,
    gpu_result,
    run,
    speed_run,
)
from benchmarks.result import Result

PLAN_BOUND = 0.1  # share of the peak that a plan may be off
STEPS = (2, 1, 1) if DRY else (4, 1, 2)

# network, vocabulary, rows of a micro-batch, micro-batches of a step, file of configs/precision/
PLANNED = [
    ("gpt-25m", 16_384, 32, 1, "32-true"),
    ("gpt-124m", 50_257, 16, 1, "bf16-mixed"),
    ("gpt-350m", 50_257, 8, 2, "bf16-mixed"),
]
# The least of `cli.py parity` for a dry run: two steps of one row and its reference.
DRY_PARITY = [
    *("--steps", "2", "--only", "single-x1-bf16-true"),
    *("-c", str(ROOT / "configs/recipes/quickstart/pretrain.yaml")),
    *(
        "-c",
        str(ROOT / "tests/configs/tiny.yaml"),
        "-c",
        str(ROOT / "tests/configs/tiny-text.yaml"),
    ),
]


def main() -> None:
    clock = Clock()
    result = gpu_result("parity", ("name", "found", "expected", "ok"))
    with tempfile.TemporaryDirectory() as folder:
        for part in (_tests, _plans, _strategies):
            try:
                part(result, clock, Path(folder))
            except Failed as error:
                result.add(name=part.__name__.strip("_"), found=str(error), ok=False)
    result.show()
    sys.exit(0 if all(row["ok"] for row in result.values["rows"]) else 1)


def _tests(result: Result, clock: Clock, folder: Path) -> None:
    """Run tests/test_gpu.py; each of its tests is a row."""
    report = folder / "tests.xml"
    command = ["-m", "pytest", "-m", "gpu", "tests/test_gpu.py", f"--junitxml={report}"]
    failed = None
    try:
        run([*command, "-p", "no:cacheprovider"], seconds=min(240, clock.left - 30))
    except Failed as error:  # the report says which
        failed = error
    if not report.exists():
        raise failed or Failed("pytest wrote no report")
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "").removeprefix("test_").replace("_", " ")
        skipped = case.find("skipped")
        if skipped is not None:
            result.not_run(name, skipped.get("message", ""))
            continue
        problem = next((found for found in case if found.tag in ("failure", "error")), None)
        words = "passed" if problem is None else (problem.get("message") or "failed")[:300]
        details = {str(p.get("name")): p.get("value") for p in case.iter("property")}
        result.add(name=name, found=words, expected="passed", ok=problem is None, **details)


def _plans(result: Result, clock: Clock, folder: Path) -> None:
    """Hold the most memory that training takes against the plan, and against its bound."""
    for name, vocabulary, rows, micro_batches, precision in PLANNED:
        label = f"peak of {name}, {rows} rows x {micro_batches}, {precision}"
        if clock.left < 30:
            result.not_run(label, "the time is up")
            continue
        vocabulary, rows = (VOCABULARY, 2) if DRY else (vocabulary, rows)
        arguments = speed_run(name, f"configs/precision/{precision}.yaml")
        arguments += [f"--data.global_batch_size={rows * micro_batches}"]
        arguments += [f"--data.micro_batch_size={rows}", f"--data.vocabulary={vocabulary}"]
        try:
            found = fit(arguments, steps=STEPS, seconds=clock.left)["peak_memory"] / 1e9
            asked = ["cli.py", "plan", *arguments, f"--vocab_size={vocabulary}", "--json"]
            plan = json.loads(run(asked, seconds=clock.left))
        except Failed as error:
            result.add(name=label, found=str(error), ok=False, arguments=arguments)
            continue
        planned = plan["needed"] / 1e9
        # A CPU's peak is that of the process, with everything that was imported.
        ok = DRY or abs(planned / found - 1) <= PLAN_BOUND
        result.add(
            name=label,
            found=f"{found:.3f} GB",
            expected=f"{planned:.3f} GB ({planned / found - 1:+.1%})",
            ok=ok,
            plan=plan,
            arguments=arguments,
        )


def _strategies(result: Result, clock: Clock, folder: Path) -> None:
    """Run `cli.py parity`, whose rows are rows here."""
    out = folder / "parity.json"
    command = ["cli.py", "parity", f"--out={out}", *(DRY_PARITY if DRY else [])]
    command += [f"--data.cache_dir={folder / 'cache'}"]
    failed = None
    try:
        run(command, seconds=clock.left)
    except Failed as error:  # a row out of its bounds is one too
        failed = error
    if not out.exists():
        raise failed or Failed("cli.py parity wrote nothing")
    found = json.loads(out.read_text())
    for row in found["rows"]:
        bounds = (row["loss_bound"], row["grad_norm_bound"])
        result.add(
            name=row["row"],
            found=f"loss {row['loss']:.1e}, grad_norm {row['grad_norm']:.1e}",
            expected=", ".join("any" if b is None else f"<= {b:.1e}" for b in bounds),
            ok=row["within"],
        )
    for line in found["missing"]:
        result.not_run(*line.split(": ", 1))


if __name__ == "__main__":
    main()
