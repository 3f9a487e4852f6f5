"""Why does preparation encode a word once and not each time that it comes?

A pre-tokenizer cuts a text into words, and what becomes of a word does not depend on the others:
the ids of a text are those of its words, one after another. And texts repeat themselves: in 31 MB
of Python the words that were not there before are 6% of the text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

MOST_CHARACTERS = 2**17
"""Of all words that are remembered. When there are more, all words are forgotten.

Few, for what is remembered should stay in the processor's cache: 31 MB of Python took 5.2 s with
2**17, 6.5 with 2**19 and 7.2 with 2**20. A word costs some 180 bytes, each id 4 more: 5 MB of words
of six letters for each of the two patterns. A portion may go beyond it.
"""

LONGEST = 64
"""Characters of a word that is remembered. What is longer hardly comes twice: a line of base64, or
a paragraph in a script without spaces."""

PORTION = 2**18
"""Characters whose words are held at a time."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How byte-level tokenizers of GPT-2's kind cut; Python's `re` does not know \\p."""

# Coarse: cut in front of white space. No word of GPT-2's has any behind its first character.
COARSE = r"\s*\S+|\s+"

# Fine: GPT-2's own words as far as they are ASCII, which decides what is a letter; from the first
# other character on, the rest as it is. What precedes a word is a border: so each is cut as there.
FINE = (
    r"'(?:[stmd]|re|ve|ll)"
    r"| ?[A-Za-z]+(?![A-Za-z]|[^\x00-\x7f])"
    r"| ?[0-9]+(?![0-9]|[^\x00-\x7f])"
    r"| ?[^\sA-Za-z0-9\x80-\U0010ffff]+(?![^\sA-Za-z0-9])"
    r"|\s+(?=\s\S)"
    r"|[^\S ](?=\S)"
    r"|(?s:.+)"
)

OTHER_SPACES = re.compile("[\x1c-\x1f]")
"""White space to Python, and none to those who cut as GPT-2 does."""

BORDER = re.compile(r"(?<=\S)(?=\s)")

ID = "I"
"""How ids are packed: 4 bytes each, where a list of numbers takes 36 and as many objects."""

Encode = Callable[[Sequence[str]], Iterable[list[int]]]
Pack = Callable[[Sequence[str]], Iterable[bytes]]
"""The same, with the ids of each text packed."""


def by_gpt2_words(encode: Encode) -> Callable[[Sequence[str]], Iterator[array[int]]]:
    """Make an `encode` of words that are cut as GPT-2 does one that remembers them."""

    def pack(words: Sequence[str]) -> Iterator[bytes]:
        return (array(ID, ids).tobytes() for ids in encode(words))

    words = Words(COARSE, Words(FINE, pack).ids)

    def encode_texts(texts: Sequence[str]) -> Iterator[array[int]]:
        for text in texts:
            if OTHER_SPACES.search(text):
                packed = b"".join(pack([text]))
            else:
                packed = b"".join(words.ids([part])[0] for part in portions(text))
            yield array(ID, packed)

    return encode_texts


class Words:
    """Encodes texts word by word, and remembers the words.

    Args:
        pattern: what its `findall` gives are the words; together they are the text
        pack: the packed ids of each of several words
    """

    def __init__(self, pattern: str, pack: Pack) -> None:
        self._words_of = re.compile(pattern).findall
        self._pack = pack
        self._known: dict[str, bytes] = {}
        self._characters = 0  # of the known words

    def ids(self, texts: Sequence[str]) -> list[bytes]:
        """The packed ids of each text."""
        words = [self._words_of(text) for text in texts]
        known, long = self._learn(set().union(*words))
        if not long:
            return [b"".join(map(known.__getitem__, one)) for one in words]
        return [b"".join([known[w] if w in known else long[w] for w in one]) for one in words]

    def _learn(self, words: set[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Encode the words that are not known; the ids of those remembered, and of the long."""
        if self._characters > MOST_CHARACTERS:
            self._known = {}  # not cleared: another thread may be reading it
            self._characters = 0
        known = self._known
        new = list(words.difference(known))
        ids = dict(zip(new, self._pack(new), strict=True))
        short = {word: ids[word] for word in new if len(word) <= LONGEST}
        known.update(short)
        self._characters += sum(map(len, short))
        return known, {word: ids[word] for word in new if len(word) > LONGEST}


def portions(text: str) -> Iterator[str]:
    """Cut a text in front of white space, so that the words of all of it are not held at once."""
    start = 0
    while border := BORDER.search(text, start + PORTION):
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]
