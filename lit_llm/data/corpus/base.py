"""What a source of text is, to everything that reads one.

To bring your own, subclass `Corpus` and `Unit` in a file of yours and name it in YAML:

    data:
      init_args:
        corpus:
          class_path: my_project.Newspapers
          init_args: {year: 1923}

Preparation asks the corpus for its units and hands each to a worker process. A unit is read
two or three times (scan, tokenizer sample, encode) and has to yield the same records each time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_llm.tokenizer.chat import Message


@dataclass(frozen=True)
class Text:
    """One document of plain text."""

    text: str
    source: str
    """Where it stood, for messages: `file:line`, `file`, `village:17`."""


@dataclass(frozen=True)
class Conversation:
    """One conversation; only what the assistant says is trained on."""

    messages: tuple[Message, ...]
    source: str
    """Where it stood, for messages: `file:line`, `file`, `village:17`."""


@dataclass(frozen=True)
class Bad:
    """A record that cannot be used. The reader goes on after it."""

    source: str
    reason: str
    """Without the place, in a few words: `no field 'text'`."""


class Unit(ABC):
    """What one worker process reads at a time: a file, some small files, a slice of a generator.

    Picklable. Large enough to be worth a task, small enough to be redone when it changes:
    some 10 to 50 MB of text.
    """

    name: str
    """Short and unique within the corpus; no part of it may depend on the machine."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that determines `read`.

        For files the SHA-256 of their bytes and of the settings that they are read with; for
        generators their arguments and the version of their code. Never a modification time.
        """

    @abstractmethod
    def read(self) -> Iterator[Text | Conversation | Bad]:
        """Yield the records in their order; the same ones on every call."""


class Corpus(ABC):
    """A source of text. Making one must be cheap: it happens whenever a config is read."""

    @abstractmethod
    def units(self) -> list[Unit]:
        """List the units, in an order that depends on nothing but the content.

        Raises:
            ValueError: nothing is there; the message says what was looked for, and where.
        """
