"""Does llama.cpp compute with the file what we compute with the checkpoint?

It is run, if the package xllamacpp is there, and both are asked the same (`probes`): how likely
tokens are after a few prompts, which is the likeliest step by step, the tokens of texts and of a
conversation. What weights of fewer bits change is measured too: llama.cpp then rounds what it
multiplies them with, so the figures are larger than the rounding of the weights alone.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_llm.checkpoint.gguf import probes
from lit_llm.checkpoint.gguf.vocabulary import Vocabulary
from lit_llm.checkpoint.hf.foreign_chat import probes as conversations
from lit_llm.checkpoint.hf.prove import NotEqual
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import Message

PACKAGE = "xllamacpp"
TEXTS = 300  # tokenized by both, in 0.2 s
LIKELIEST = 1000  # log-probabilities that are compared at each step
ALWAYS_ALLOWED = 1e-4
"""How far a log-probability may be off, in nats, in any model."""

ALLOWED = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5, "q8_0": 2.0}
"""The same as a share of how far log-probabilities spread, their standard deviation. Measured on
networks of random weights: 9e-6, 0.007, 0.05 and 0.25; a matrix with rows in a wrong order: 4.
SmolLM2-135M: 1.7e-4 in float32, for llama.cpp itself is that far from float64 there, we 2e-5;
0.1 in bfloat16, 0.6 in q8_0."""


@dataclass(frozen=True)
class Question:
    """What both are asked."""

    texts: list[str]
    prompts: list[list[int]]
    chats: list[list[Message]]
    letter: int
    """Id of a token that is whole text."""


@dataclass(frozen=True)
class Figures:
    """How far the answers agree."""

    difference: float
    """The largest between two log-probabilities of a token, in nats."""

    compared: int
    """Log-probabilities."""

    spread: float
    """Their standard deviation, in nats."""

    equal_steps: int
    """Steps at which both find the same token the likeliest, of `steps`."""

    steps: int
    texts: int
    other_texts: list[str]
    """Texts that both split into other tokens."""

    chats: int
    other_chats: int
    """Conversations that both write in other tokens."""


def is_there() -> bool:
    """Whether llama.cpp can be run."""
    return importlib.util.find_spec(PACKAGE) is not None


def question(
    config: GPTConfig, tokenizer: Tokenizer, words: Vocabulary, *, is_chat: bool
) -> Question:
    """What to ask about a model."""
    without, composed = words.described.mistakable, words.described.composes
    has_system = tokenizer.chat_template.system is not None
    return Question(
        texts=probes.texts(tokenizer, TEXTS, seed=0, without=without, composed=composed),
        prompts=probes.prompts(config, tokenizer),
        chats=conversations(with_system=has_system) if is_chat else [],
        letter=probes.letter(tokenizer),
    )


def compare(path: Path, gpt: GPT, tokenizer: Tokenizer, question: Question) -> Figures:
    """Ask llama.cpp and the model, and compare.

    Args:
        path: the file
        gpt: the network, in float32
        tokenizer: its tokenizer
        question: what to ask

    Raises:
        NotEqual: llama.cpp cannot read the file, or fails.
    """
    answers = ask(path, gpt, question)
    pairs = zip(question.prompts, answers["answers"], strict=True)
    steps = [step for prompt, answer in pairs for step in _steps(gpt, prompt, answer)]
    ours_N, theirs_N = (torch.cat(column) for column in list(zip(*steps, strict=True))[:2])
    template = tokenizer.chat_template
    ours = [template.prompt(tokenizer, messages) for messages in question.chats]
    texts = zip(question.texts, answers["texts"], strict=True)
    return Figures(
        difference=(ours_N - theirs_N).abs().max().item(),
        compared=len(ours_N),
        spread=ours_N.std().item(),
        equal_steps=sum(step.agrees for step in steps),
        steps=len(steps),
        texts=len(question.texts),
        other_texts=[text for text, ids in texts if tokenizer.encode(text) != ids],
        chats=len(question.chats),
        other_chats=sum(a != b for a, b in zip(ours, answers["chats"], strict=True)),
    )


def judge(figures: Figures, dtype: str) -> str:
    """The figures in words.

    Raises:
        NotEqual: they do not agree as far as the dtype allows.
    """
    said = (
        f"llama.cpp: {figures.compared:,} log-probabilities at most {figures.difference:.1e} nats "
        f"off, the likeliest token the same at {figures.equal_steps} of {figures.steps} steps"
    )
    allowed = max(ALWAYS_ALLOWED, ALLOWED[dtype] * figures.spread)
    if not figures.difference <= allowed:  # so that NaN is refused
        raise _differs(f"{said}; {dtype} allows {allowed:.1e}")
    if figures.other_texts:
        n, first = len(figures.other_texts), figures.other_texts[0]
        raise _differs(f"{n} of {figures.texts} texts become other tokens, such as {first!r}")
    if figures.other_chats:
        n = figures.other_chats
        raise _differs(f"{n} of {figures.chats} conversations become other tokens")
    return f"{said}; {figures.texts} texts and {figures.chats} conversations become the same tokens"


def _differs(what: str) -> NotEqual:
    return NotEqual(f"llama.cpp does not compute the model. {what}\nNothing is left of the export")


def ask(path: Path, gpt: GPT, question: Question) -> dict[str, Any]:
    """What llama.cpp answers, as `answers` describes it.

    Raises:
        NotEqual: it cannot read the file, or fails.
    """
    steps = probes.steps(gpt.config)
    asked = {
        "model": str(path),
        "context": max(map(len, question.prompts)) + steps,
        "threads": torch.get_num_threads(),
        "texts": question.texts,
        "prompts": question.prompts,
        "tokens": steps,
        "likeliest": min(LIKELIEST, gpt.config.vocab_size),
        "letter": question.letter,
        "chats": [[vars(message) for message in messages] for messages in question.chats],
    }
    script = Path(__file__).with_name("answers.py")
    # -P: the script's folder, whose modules have common names, is no place to import from.
    done = subprocess.run(
        [sys.executable, "-P", script], input=json.dumps(asked), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise NotEqual(
            f"llama.cpp cannot use the file (exit code {done.returncode}): {_reason(done.stderr)}\n"
            "Nothing is left of it; please report this"
        )
    return json.loads(done.stdout)


def _reason(said: str) -> str:
    """Its first complaint; what follows are consequences."""
    lines = said.strip().splitlines() or ["it said nothing"]
    first = next((line for line in lines if "error" in line.lower()), lines[-1])
    return first.rpartition("error loading model: ")[2]


class _Step(NamedTuple):
    ours_N: Tensor
    """Our log-probabilities of the tokens that are likeliest to llama.cpp."""

    theirs_N: Tensor
    agrees: bool
    """Both find the same token the likeliest."""


@torch.inference_mode()
def _steps(gpt: GPT, prompt: Sequence[int], answer: Sequence[Any]) -> list[_Step]:
    """Read what llama.cpp has written, in one pass."""
    followed = [likeliest[0][0] for likeliest in answer]
    ours_TV = gpt(torch.tensor([[*prompt, *followed[:-1]]]))[0, len(prompt) - 1 :]
    steps = []
    for ours_V, likeliest in zip(ours_TV.log_softmax(dim=-1), answer, strict=True):
        ids, theirs = zip(*likeliest, strict=True)
        agrees = int(ours_V.argmax()) == ids[0]
        theirs_N = torch.tensor([math.nan if x is None else x for x in theirs])  # NaN in JSON
        steps.append(_Step(ours_V[list(ids)], theirs_N, agrees))
    return steps
