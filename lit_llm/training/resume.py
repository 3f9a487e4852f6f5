"""Whether a configuration may continue a run that was started with another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# What decides the weights at a given step: another value would make another run of it.
TRAJECTORY = ("seed_everything", "model.gpt", "model.objective", "model.optimizer", "data")

# Under the keys above, what may change all the same: who does the work, and how it is shared out.
FREE = (
    "data.init_args.micro_batch_size",
    "data.init_args.num_workers",
    "data.init_args.prepare_workers",
    "data.init_args.cache_dir",
    "data.init_args.max_bad_share",
)

# What the new configuration decides from here on, said aloud.
APPLIED = (
    "trainer.max_steps",
    "trainer.gradient_clip_val",
    "model.groups",
    "model.schedule",
    "model.optimizer.init_args",
)


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Compare the configuration of a checkpoint with the one that is to continue it.

    Returns:
        A line for each change that is applied from here on.

    Raises:
        ValueError: a key that decides the trajectory has changed.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changes = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was == now or _under(key, FREE):
            continue
        if _under(key, APPLIED):
            changes.append(f"{key}: {was} -> {now} from here on")
        elif _under(key, TRAJECTORY):
            raise ValueError(
                f"{key}={now!r}, but this run was made with {was!r}, and it decides the weights.\n"
                "Give the old value to continue the run, or --run NAME to start another one"
            )
    return changes


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value
