"""How well is a text predicted? In bits per byte, which no choice of tokens changes.

A text of b bytes in UTF-8 whose tokens get the probabilities p_1 ... p_n costs
sum(-log2 p_i) / b bits per byte: what a compressor that follows the model would need.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from lit_llm.evaluation.base import Options, Task
from lit_llm.evaluation.likelihood import OnProgress, Pair, likelihoods
from lit_llm.evaluation.result import Result, ratio
from lit_llm.evaluation.subject import Subject


class BitsPerByte(Task):
    """Bits per byte of a file, or of all files in a folder; each file is one document."""

    uses = frozenset({"stride"})

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.texts = [text for file in _files(path) if (text := _read(file))]
        if not self.texts:
            raise ValueError(f"{path} holds no text: give a file, or a folder with files")

    def run(self, subject: Subject, options: Options, on_progress: OnProgress) -> list[Result]:
        """Every token of every file is predicted once; bos is read, and never counted."""
        context = subject.gpt.config.max_seq_len
        stride = options.stride or max(1, context // 2)
        if stride > context:
            raise ValueError(f"--stride {stride}: the model reads {context} tokens at once")
        pairs = [
            pair
            for text in self.texts
            for pair in windows(
                subject.tokenizer.encode(text), subject.prefix_id, context=context, stride=stride
            )
        ][: options.limit]
        scores = likelihoods(
            subject.gpt, pairs, batch_size=subject.batch_size, on_progress=on_progress
        )
        nats = [-score.logprob for score in scores]
        tokens = [len(pair.continuation) for pair in pairs]
        sizes: list[float] = [_bytes(subject, pair.continuation) for pair in pairs]
        if not sum(sizes):
            raise ValueError(f"{self.name}: the tokenizer makes no token of this text, try another")
        if options.limit is None:  # what a tokenizer that is not lossless drops has its bytes too
            share = sum(len(text.encode()) for text in self.texts) / sum(sizes)
            sizes = [size * share for size in sizes]
        metrics = [
            ratio("bits_per_byte", nats, sizes, scale=1 / math.log(2)),
            ratio("nats_per_token", nats, tokens),
        ]
        counts = {"documents": len(self.texts), "windows": len(pairs)}
        counts |= {"tokens": sum(tokens), "bytes": round(sum(sizes))}
        return [Result(self.name, metrics, counts, {"context": context, "stride": stride})]


def windows(ids: Sequence[int], prefix: int, *, context: int, stride: int) -> Iterator[Pair]:
    """Cut a text so that each token is predicted once, from as many before it as there is room.

    The first window reads the prefix and the text's beginning. Every later one is full: it
    predicts the next `stride` tokens (the last one: those that are left), each from at least
    `context - stride + 1` tokens. Seven tokens, context 4, stride 2:

        reads            predicts
        prefix 0 1 2     0 1 2 3
        1 2 3 4              4 5
        2 3 4 5                6

    Args:
        ids: the text's tokens
        prefix: stands before the first one; only the first window sees it
        context: tokens that the model reads at once
        stride: tokens that a window predicts; 1 gives each token all the context that fits, and
            `context` is the fastest

    Yields:
        Pairs (context, continuation): what is read is both, without the last token.
    """
    if not ids:
        return
    yield Pair([prefix], ids[:context])
    for start in range(context, len(ids), stride):
        end = min(start + stride, len(ids))
        yield Pair(ids[end - context - 1 : start], ids[start:end])


def _bytes(subject: Subject, ids: Sequence[int]) -> int:
    return sum(len(subject.tokenizer.token_bytes(id)) for id in ids)


def _files(path: Path) -> list[Path]:
    """The file itself, or the files below a folder in the order of their names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"no file or folder {path} (looked in {Path.cwd()})")
    inside = (file for file in sorted(path.rglob("*")) if file.is_file())
    return [
        file
        for file in inside
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]


def _read(file: Path) -> str:
    content = file.read_bytes()  # and not as text, which would make one byte of \r\n
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no text in UTF-8: byte {error.start} is 0x{content[error.start]:02x}"
        ) from None
