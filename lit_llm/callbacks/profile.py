"""Where the time of a step goes: configs/overlays/profile.yaml puts this into any run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
from torch.profiler import ProfilerActivity, profile, schedule

from lit_llm.callbacks.shares import STEP, Share, parts, shares

TABLE, TRACE = "profile.txt", "profile.json.gz"


class Profile(L.Callback):
    """Records a few steps with PyTorch's profiler, prints where their time went, and ends the run.

    The folder of the run gets `profile.txt`, the tables, and `profile.json.gz`, every operator on a
    time line: open it at https://ui.perfetto.dev. On several devices, rank 0 records itself.

    Recording slows small operators down, on a CPU by microseconds each: shares are what to read
    here, and speed in a run without it.

    Args:
        wait: steps before it; compilation and the allocator settle in them
        warmup: steps that are recorded and thrown away, for the first are slower
        steps: that are recorded
        rows: of the table of operators on the terminal; the file has all
    """

    def __init__(self, wait: int = 3, warmup: int = 2, steps: int = 3, rows: int = 12) -> None:
        if min(wait, warmup) < 0 or steps < 1:
            raise ValueError(
                f"a profile of wait={wait}, warmup={warmup}, steps={steps} records nothing: give "
                "steps of 1 or more, and none below 0"
            )
        self.wait, self.warmup, self.steps, self.rows = wait, warmup, steps, rows
        self._profile: profile | None = None
        self._stack = ExitStack()
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        compiled = getattr(pl_module, "compile_blocks", False)
        optimizer = trainer.optimizers[0]
        self._stack.enter_context(parts(pl_module.gpt, optimizer, inside_blocks=not compiled))  # type: ignore[arg-type]
        kinds = [ProfilerActivity.CPU]
        if pl_module.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        self._step = trainer.global_step
        self._profile = self._stack.enter_context(
            profile(
                activities=kinds,
                schedule=schedule(wait=self.wait, warmup=self.warmup, active=self.steps, repeat=1),
                on_trace_ready=lambda found: self._write(found, trainer, pl_module),
                acc_events=True,
            )
        )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == self._step:  # a micro-batch that did not end a step
            return
        self._step = trainer.global_step
        if self._profile is not None:
            self._profile.step()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._profile = None
        self._stack.close()

    def _write(self, found: profile, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        on_device = pl_module.device.type == "cuda"
        events = found.events() or []
        steps = sum(event.name.startswith(STEP) for event in events) or 1  # fewer if the run ended
        by_part, by_operator = shares(events, on_device=on_device)
        text = as_text(by_part, by_operator, steps)
        (folder / TABLE).write_text(text + "\n", encoding="utf-8")
        found.export_chrome_trace(str(folder / TRACE))
        pl_module.print(as_text(by_part, by_operator[: self.rows], steps))
        pl_module.print(f"all operators: {folder / TABLE}; time line: {folder / TRACE}")


def as_text(by_part: list[Share], by_operator: list[Share], steps: int) -> str:
    """Both tables, per step."""
    whole = sum(share.seconds for share in by_part)
    lines = [f"{'where the time goes':<44} {'share':>7} {'ms a step':>10}"]
    lines += [_line(share, whole, steps) for share in by_part]
    lines += [_line(Share("all", whole, 0), whole, steps), ""]
    lines += [f"{'heaviest operators':<44} {'share':>7} {'ms a step':>10} {'calls a step':>13}"]
    lines += [
        f"{_line(share, whole, steps)} {share.calls / steps:>13,.0f}" for share in by_operator
    ]
    return "\n".join(lines)


def _line(share: Share, whole: float, steps: int) -> str:
    name = share.name if len(share.name) <= 44 else share.name[:41] + "..."
    return f"{name:<44} {share.seconds / whole:>7.1%} {1e3 * share.seconds / steps:>10.3f}"
