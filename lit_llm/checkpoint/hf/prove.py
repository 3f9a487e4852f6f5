"""Do we and transformers compute the same with the same folder?

A conversion is done only when this says so. transformers runs in a process of its own, before our
model is loaded: so neither finds what the other left, and the memory of one is free for the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.hf.foreign_chat import probes
from lit_llm.checkpoint.hf.parts import in_float32
from lit_llm.checkpoint.hf.strings import random_texts, typed_control
from lit_llm.checkpoint.hf.witness import ask
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import Message

WIDE = 1e-5
"""How far logits in float32 may be apart, as a share of the largest."""

ALIKE = 0.99
"""Share of positions at which 16 bits must choose the same token on both sides, or two whose logits
in float32 are closer together than transformers' 16 bits are to float32: those are one to them."""

FURTHER = 1.05
"""How much further from float32 our 16 bits may be than theirs, in the root mean square: two
roundings of one product differ by chance."""

TEXTS, TYPED = 1000, 100


class NotEqual(ValueError):
    """Both sides differ: the conversion is not to be used."""


@dataclass(frozen=True)
class Proof:
    """What was compared, and how far apart it was."""

    version: str
    """of transformers"""

    difference: float
    """the largest between two logits in float32"""

    largest: float
    """the largest logit"""

    positions: int
    """tokens after which logits were compared"""

    texts: int
    """texts that were cut into the same tokens"""

    chats: int
    """conversations that were written in the same tokens"""

    narrow: tuple[float, float, float] | None
    """in 16 bits: our distance from float32, theirs, and the share of equal choices"""

    window: int | None = None
    """a sliding window that no row of tokens was longer than"""

    def lines(self) -> list[str]:
        """What a user is told."""
        told = [
            f"equal to transformers {self.version}: logits of {self.positions} tokens differ by at "
            f"most {self.difference:.1e}, the largest is {self.largest:.3g} (float32)"
        ]
        if self.narrow is not None:
            ours, theirs, alike = self.narrow
            told.append(
                f"in 16 bits: {ours:.2e} from float32, transformers {theirs:.2e}; "
                f"the same token, or one that 16 bits cannot tell from it, at {alike:.1%} of "
                "positions"
            )
        if self.window is not None:
            told.append(
                f"the sliding window of {self.window} tokens is longer than what was compared"
            )
        told.append(f"{self.texts:,} texts and {self.chats} chats have the same tokens")
        return told


def prove(
    folder: Path,
    config: GPTConfig,
    load: Callable[[], GPT],
    dtype: torch.dtype,
    tokenizer: Tokenizer,
    *,
    chat: bool,
) -> Proof:
    """Compare our model and tokenizer with what transformers finds in a folder.

    Args:
        folder: in Hugging Face's form
        config: of our model
        load: our model, with the weights of the folder
        dtype: of our model's weights; theirs are given the same
        tokenizer: ours
        chat: whether the folder has a chat template, which is compared too

    Raises:
        NotEqual: says what differs and by how much.
        ValueError: transformers is not installed, or cannot load the folder.
    """
    control = sorted(tokenizer.control)
    texts = [
        text for text in random_texts(TEXTS) if not any(token in text for token in control if token)
    ]
    template = tokenizer.chat_template
    request: dict[str, Any] = {
        "folder": str(folder.absolute()),
        "dtype": str(dtype).removeprefix("torch."),
        "rows": rows(config),
        "texts": texts,
        "typed": typed_control(control, TYPED),
        "chats": [
            [vars(message) for message in messages]
            for messages in (probes(with_system=template.system is not None) if chat else [])
        ],
    }
    answer, logits = ask(request)
    _compare_tokens(tokenizer, request, answer)
    wide, narrow = _our_logits(load, request["rows"])
    difference, largest = _compare_wide(wide, logits, config.vocab_size)
    return Proof(
        version=answer["version"],
        difference=difference,
        largest=largest,
        positions=sum(map(len, request["rows"])),
        texts=len(texts) + len(request["typed"]),
        chats=len(request["chats"]),
        narrow=_compare_narrow(narrow, logits, wide) if narrow else None,
        window=_not_seen(config, request["rows"]),
    )


def rows(config: GPTConfig) -> list[list[int]]:
    """Token ids to compare logits of: one token, some, and more than a sliding window holds."""
    draw = random.Random(0)
    lengths = [1, 7, 24, 96]
    if config.sliding_window is not None:
        lengths.append(min(config.sliding_window + 64, 2048))
    lengths = sorted({min(length, config.max_seq_len) for length in lengths})
    return [[draw.randrange(config.vocab_size) for _ in range(length)] for length in lengths]


def _not_seen(config: GPTConfig, token_rows: Sequence[Sequence[int]]) -> int | None:
    window, longest = config.sliding_window, max(map(len, token_rows))
    return window if window is not None and longest <= window else None


@torch.no_grad()
def _our_logits(
    load: Callable[[], GPT], token_rows: Sequence[Sequence[int]]
) -> tuple[list[Tensor], list[Tensor]]:
    """In float32, and in the model's own 16 bits if it has those."""
    gpt = load().eval()
    tokens = [torch.tensor([row]) for row in token_rows]
    narrow: list[Tensor] = []
    if gpt.embed.weight.dtype != torch.float32:
        narrow = [_logits(gpt, row) for row in tokens]
    in_float32(gpt)
    return [_logits(gpt, row) for row in tokens], narrow


def _logits(gpt: GPT, tokens_BT: Tensor) -> Tensor:
    logits_BTV = gpt(tokens_BT)
    assert isinstance(logits_BTV, Tensor)
    return logits_BTV[0].float()


def _compare_wide(
    wide: Sequence[Tensor], logits: dict[str, Tensor], vocab_size: int
) -> tuple[float, float]:
    """The largest difference between two logits in float32, and the largest logit."""
    difference = largest = 0.0
    for index, ours in enumerate(wide):
        theirs = logits[f"wide.{index}"][:, :vocab_size]
        if ours.shape != theirs.shape:
            raise NotEqual(
                f"logits of transformers have shape {tuple(theirs.shape)}, ours {tuple(ours.shape)}"
            )
        for whose, found in (("ours", ours), ("those of transformers", theirs)):
            if not bool(found.isfinite().all()):  # NaN would be no larger than any difference
                raise NotEqual(f"logits are not finite, {whose}: this model computes nothing")
        difference = max(difference, float((ours - theirs).abs_().max()))
        largest = max(largest, *map(abs, map(float, theirs.aminmax())))
    if not difference <= WIDE * largest:
        raise NotEqual(
            f"logits differ from those of transformers by up to {difference:.3g} (the largest is "
            f"{largest:.3g}, allowed {WIDE * largest:.1e}):\n"
            "this model is not computed alike here; nothing was written"
        )
    return difference, largest


def _compare_narrow(
    narrow: Sequence[Tensor], logits: dict[str, Tensor], wide: Sequence[Tensor]
) -> tuple[float, float, float]:
    squares = torch.zeros(2, dtype=torch.float64)
    alike = positions = values = 0
    blur = max(
        float((logits[f"narrow.{i}"][:, : exact.size(1)] - exact).abs_().max())
        for i, exact in enumerate(wide)
    )
    for index, (ours, exact) in enumerate(zip(narrow, wide, strict=True)):
        theirs = logits[f"narrow.{index}"][:, : exact.size(1)]
        for side, found in enumerate((ours, theirs)):
            squares[side] += (found - exact).square_().sum(dtype=torch.float64)
        chosen = [exact.gather(-1, side.argmax(-1, keepdim=True)) for side in (ours, theirs)]
        alike += int(((chosen[0] - chosen[1]).abs() <= blur).sum())
        positions += len(ours)
        values += exact.numel()
    distance, their_distance = (squares / values).sqrt().tolist()
    if distance > FURTHER * their_distance or alike < ALIKE * positions:
        raise NotEqual(
            f"in 16 bits our logits are {distance:.3g} from float32, those of transformers "
            f"{their_distance:.3g}, and {alike} of {positions} choices are the same"
        )
    return distance, their_distance, alike / positions


def _compare_tokens(tokenizer: Tokenizer, request: dict[str, Any], answer: dict[str, Any]) -> None:
    for key in ("texts", "typed"):
        ours = [list(ids) for ids in tokenizer.encode_batch(request[key])]
        for text, mine, theirs in zip(request[key], ours, answer[key], strict=True):
            if mine != theirs:
                raise NotEqual(_differing(text, mine, theirs))
    begun = tokenizer.document(tokenizer.encode(request["texts"][0]))
    if begun != answer["begun"]:
        raise NotEqual(_differing(request["texts"][0], begun, answer["begun"]))
    template = tokenizer.chat_template
    for messages, theirs in zip(request["chats"], answer["chats"], strict=True):
        mine = template.prompt(tokenizer, [Message(**message) for message in messages])
        if mine != theirs:
            raise NotEqual(_differing(str(messages), mine, theirs))


def _differing(text: str, ours: list[int], theirs: list[int]) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    around = slice(max(place - 2, 0), place + 3)
    return (
        f"the tokenizers differ at token {place} of {text[:60]!r}:\n"
        f"ours {ours[around]}, transformers {theirs[around]}"
    )
