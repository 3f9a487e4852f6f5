"""Whether a configuration may continue a run that was started with another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lit_llm.checkpoint.plain import LATER_FIELDS

# What decides the weights at a given step: another value would make another run of it.
TRAJECTORY = (
    "seed_everything",
    "model.gpt",
    "model.lora",
    "model.objective",
    "model.optimizer",
    "data",
)

# Under the keys above, what may change all the same: who does the work, and how it is shared out.
FREE = (
    "model.lora.base_dtype",
    "data.init_args.micro_batch_size",
    "data.init_args.num_workers",
    "data.init_args.prepare_workers",
    "data.init_args.cache_dir",
    "data.init_args.max_bad_share",
    "data.init_args.verify",
)

# What the new configuration decides from here on, said aloud.
APPLIED = (
    "trainer.max_steps",
    "trainer.gradient_clip_val",
    "model.groups",
    "model.schedule",
    "model.optimizer.init_args",
    "nan_guard",
    "spike_guard",
    "trainer.gradient_clip_algorithm",
    "trainer.overfit_batches",
    "trainer.precision",
    "run",
)

# Keys that runs of earlier versions do not have, and what they computed.
LATER = {f"model.gpt.{field}": value for field, value in LATER_FIELDS.items()}

# Precisions that say what the weights themselves are; under any other one they are float32.
WEIGHTS_IN = {
    "bf16-true": "bfloat16",
    "transformer-engine": "bfloat16",
    "16-true": "float16",
    "transformer-engine-float16": "float16",
    "64-true": "float64",
}
SPELLINGS = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
SPELLINGS |= {"64": "64-true"}
OR_ANOTHER_RUN = "give the old value to continue the run, or --run NAME to start another one"


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Compare the configuration of a checkpoint with the one that is to continue it.

    Returns:
        A line for each change that is applied from here on.

    Raises:
        ValueError: a key that decides the trajectory has changed.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changes = []
    was, now = before.pop("model.init_from", None), after.pop("model.init_from", None)
    if was != now:  # before the keys that follow from it
        changes.append(_refuse_two_beginnings(was, now))
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, LATER.get(key)), after.get(key)
        if was == now or _under(key, FREE) or _is_masked(was) or _is_masked(now):
            continue
        if key == "trainer.precision":
            was, now = _refuse_other_weights(str(was), str(now))
            if was == now:
                continue
        if _under(key, APPLIED):
            changes.append(f"{key}: {was} -> {now} from here on")
        elif _under(key, TRAJECTORY):
            raise ValueError(
                f"{key}={_shown(now)}, but this run was made with {_shown(was)}, and it decides "
                "the weights: " + OR_ANOTHER_RUN
            )
    return changes


def compare_data(old: dict[str, Any], new: dict[str, Any], *, continues: bool) -> None:
    """Compare the data of a checkpoint, by content, with what the configuration's names lead to.

    Args:
        old: `data` of the checkpoint's description
        new: the same of the data module
        continues: whether the run goes on; otherwise only the tokenizer has to be the checkpoint's

    Raises:
        ValueError: the tokenizer is another one, or the text has changed since.
    """
    if old.get("tokenizer") != new["tokenizer"]:
        raise ValueError(
            "data.tokenizer is not the one that this checkpoint was trained with, though it may "
            "have its name and size, and its ids mean other text: give the old one, or --run NAME "
            "to start another run"
        )
    if continues and old.get("fingerprint", new["fingerprint"]) != new["fingerprint"]:
        raise ValueError(
            "the text behind data.corpus has changed since this checkpoint, and it decides the "
            "weights: put the old files back to continue the run, or give --run NAME to start "
            "another one"
        )


def _refuse_other_weights(was: str, now: str) -> tuple[str, str]:
    was, now = SPELLINGS.get(was, was), SPELLINGS.get(now, now)
    before, after = (WEIGHTS_IN.get(precision, "float32") for precision in (was, now))
    if before != after:
        raise ValueError(
            f"trainer.precision={now} keeps the weights in {after}, but this run has them in "
            f"{before} ({was}): " + OR_ANOTHER_RUN
        )
    return was, now


def _refuse_two_beginnings(was: str | None, now: str | None) -> str:
    if was is None:
        raise ValueError(
            f"model.init_from={now} starts a run from old weights, but this one goes on from a "
            "checkpoint, and did not start so: leave model.init_from out to continue it, or give "
            "--run NAME to start another one"
        )
    return f"model.init_from: {was} -> {now} has no effect: the weights are the checkpoint's"


def _shown(value: Any) -> str:
    """As a message says it; what is not given has a default."""
    return "the default" if value is None else repr(value)


def _is_masked(value: Any) -> bool:
    """Whether a secret stood here: whoever continues a run may have another key for the logger."""
    return isinstance(value, str) and len(value) >= 3 and set(value) == {"*"}


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value
