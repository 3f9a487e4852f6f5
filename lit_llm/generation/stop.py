"""Token by token to text: whole characters only, and never a piece of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Turns the tokens of one answer into text that is final as soon as it is released.

    Held back are the bytes of an unfinished UTF-8 character and any ending that may still grow
    into a stop string. Bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stop: Sequence[str] = ()) -> None:
        self.text = ""
        """What has been released so far."""
        self.stopped = False
        """A stop string is complete; it and what came after it were dropped."""
        self._token_bytes = token_bytes
        self._stop = stop
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def push(self, id: int) -> str:
        """Take the next token and return the text that it releases, often the empty string."""
        return self._release(self._utf8.decode(self._token_bytes(id)), last=False)

    def finish(self) -> str:
        """Return what was still held back: no more tokens will come."""
        return self._release(self._utf8.decode(b"", final=True), last=True)

    def _release(self, new: str, *, last: bool) -> str:
        assert not self.stopped
        self._held += new
        end = find_stop(self._held, self._stop)
        if end is not None:
            self.stopped = True
            piece, self._held = self._held[:end], ""
        else:
            end = len(self._held) - (0 if last else unfinished_stop(self._held, self._stop))
            piece, self._held = self._held[:end], self._held[end:]
        self.text += piece
        return piece


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the stop string that is complete first begins; None if there is none.

    First complete, not first begun: that does not depend on how the text was cut into tokens.
    Of two that end together, the longer one.
    """
    found = [(begin + len(s), begin) for s in stop if (begin := text.find(s)) >= 0]
    return min(found)[1] if found else None


def unfinished_stop(text: str, stop: Sequence[str]) -> int:
    """Length of the longest ending of `text` with which a stop string begins."""
    lengths = (n for s in stop for n in range(1, len(s)) if text.endswith(s[:n]))
    return max(lengths, default=0)
