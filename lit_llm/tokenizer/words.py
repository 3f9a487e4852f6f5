"""Why does preparation encode a word once and not each time that it comes?

A pre-tokenizer cuts a text into words, and what becomes of a word does not depend on the others:
the ids of a text are those of its words, one after another. And texts repeat themselves: in 31 MB
of Python the words that were not there before are 6% of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

MOST_CHARACTERS = 2**20
"""Of all words that are remembered. When there are more, all words are forgotten.

A word costs some 150 bytes, each id 36 more. So this is 35 MB of words of six letters with an id
or two, 90 MB of Chinese with two ids a character, and at most 160 MB: emoji with four. That is for
each of the two patterns, and a portion may go beyond it.
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

Encode = Callable[[Sequence[str]], Iterable[list[int]]]


def by_gpt2_words(encode: Encode) -> Encode:
    """Make an `encode` of words that are cut as GPT-2 does one that remembers them."""
    words = Words(COARSE, Words(FINE, encode).ids)

    def encode_texts(texts: Sequence[str]) -> Iterator[list[int]]:
        for text in texts:
            if OTHER_SPACES.search(text):
                yield from encode([text])
            else:
                yield list(chain.from_iterable(words.ids([part])[0] for part in portions(text)))

    return encode_texts


class Words:
    """Encodes texts word by word, and remembers the words.

    Args:
        pattern: what its `findall` gives are the words; together they are the text
        encode: the ids of each of several words
    """

    def __init__(self, pattern: str, encode: Encode) -> None:
        self._words_of = re.compile(pattern).findall
        self._encode = encode
        self._known: dict[str, list[int]] = {}
        self._characters = 0  # of the known words

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        words = [self._words_of(text) for text in texts]
        ids_of = self._lookup(set().union(*words))
        return [list(chain.from_iterable(map(ids_of, one))) for one in words]

    def _lookup(self, words: set[str]) -> Callable[[str], list[int]]:
        """Encode the words that are not known, remember the short ones; gives the ids of each."""
        if self._characters > MOST_CHARACTERS:
            self._known = {}  # not cleared: another thread may be reading it
            self._characters = 0
        known = self._known
        new = list(words.difference(known))
        ids = dict(zip(new, self._encode(new), strict=True))
        short = {word: ids[word] for word in new if len(word) <= LONGEST}
        known.update(short)
        self._characters += sum(map(len, short))
        if len(short) == len(new):
            return known.__getitem__
        return lambda word: known[word] if len(word) <= LONGEST else ids[word]


def portions(text: str) -> Iterator[str]:
    """Cut a text in front of white space, so that the words of all of it are not held at once."""
    start = 0
    while border := BORDER.search(text, start + PORTION):
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]
