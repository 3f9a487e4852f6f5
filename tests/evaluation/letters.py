"""A tokenizer and networks whose numbers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer import SPECIAL, Tokenizer

BOS, EOS, END = (SPECIAL.index(name) for name in ("bos", "eos", "end"))


class Letters(Tokenizer):
    """A token per letter, after the control tokens; é is one token of two bytes."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    @property
    def vocab_size(self) -> int:
        return len(SPECIAL) + len(self.letters)

    @property
    def special(self) -> dict[str, int]:
        return {name: id for id, name in enumerate(SPECIAL)}

    @property
    def fingerprint(self) -> str:
        return self.letters

    def encode(self, text: str) -> list[int]:
        return [len(SPECIAL) + self.letters.index(letter) for letter in text]

    def token_bytes(self, id: int) -> bytes:
        return self.letters[id - len(SPECIAL)].encode() if id >= len(SPECIAL) else b""

    def save(self, folder: Path) -> None:
        (folder / "letters.txt").write_text(self.letters, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Letters:
        return cls((folder / "letters.txt").read_text(encoding="utf-8"))


def random_gpt(tokenizer: Tokenizer, max_seq_len: int) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, max_seq_len=max_seq_len, n_layer=2, d_model=36, n_head=6
    )
    gpt = GPT(config).eval()
    for parameter in gpt.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)  # far from even odds
    return gpt


def bigrams(tokenizer: Letters, odds: Mapping[str, Mapping[str, float]], max_seq_len: int) -> GPT:
    """A network in which the next letter depends on the last one alone.

    Args:
        tokenizer: its letters
        odds: after each letter ("" for the beginning and control tokens, "?" for any other
            letter), the probability of some; what is left of 1 is pad's
        max_seq_len: its context

    Its blocks add nothing, so what is left is the norm of an embedding: a one-hot row of D
    channels has a root mean square of 1 / sqrt(D), and becomes sqrt(D) times itself.
    """
    classes = list(odds)
    D = 2 * len(classes)
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size,
        max_seq_len=max_seq_len,
        n_layer=1,
        d_model=D,
        n_head=1,
        norm_eps=1e-12,  # or the root mean square is not exactly that
    )
    gpt = GPT(config).eval()
    with torch.no_grad():
        for parameter in gpt.blocks.parameters():
            parameter.zero_()
        gpt.embed.weight.zero_()
        gpt.lm_head.weight.fill_(-1000.0)
        for id in range(tokenizer.vocab_size):
            letter = tokenizer.token_bytes(id).decode()
            known = letter if letter in classes else "?"
            gpt.embed.weight[id, classes.index(known)] = 1.0
        for place, after in enumerate(odds.values()):
            chances = {tokenizer.encode(letter)[0]: chance for letter, chance in after.items()}
            chances[SPECIAL.index("pad")] = 1 - sum(chances.values()) + 1e-9
            for id, chance in chances.items():
                gpt.lm_head.weight[id, place] = torch.tensor(chance).log() / D**0.5
    return gpt
