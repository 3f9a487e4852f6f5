"""Which key of a configuration an error belongs to that a library's class raised in __init__."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

from lit_llm.commands.classes import named
from lit_llm.commands.compose import Configuration


def blamed(
    error: BaseException, configuration: Configuration, flags: Sequence[str]
) -> tuple[str, str] | None:
    """Find the class in the configuration that could not be built.

    Lightning says what it does not take, such as `mode=least`, and not whose `mode` that is.

    Returns:
        The key and the class that it names; None if no class of the configuration was being built.
    """
    built = [name for trace in _traces(error) for name in _built(trace)]
    for key, path in named(configuration.values, flags):
        if path.rpartition(".")[2] in built:
            return key.removesuffix(".class_path"), path
    return None


def refusal(
    error: BaseException, configuration: Configuration, flags: Sequence[str]
) -> tuple[str, str] | None:
    """The same for what Lightning says that a user cannot have; with the text of it, in a line."""
    link: BaseException | None = error
    while link is not None and type(link).__name__ != "MisconfigurationException":
        link = link.__cause__ if link.__cause__ is not link else None
    found = None if link is None else blamed(link, configuration, flags)
    if found is None:
        return None
    key, path = found
    return key, f"{path}: {' '.join(str(link).split())}: change or remove it"


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _built(trace: TracebackType) -> Iterator[str]:
    frame = trace.tb_frame
    if frame.f_code.co_name == "__init__" and "self" in frame.f_locals:
        yield type(frame.f_locals["self"]).__name__
