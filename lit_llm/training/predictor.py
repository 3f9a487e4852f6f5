"""A checkpoint that answers, as the Trainer runs it in `predict`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import lightning as L

from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.find import asked_by, resolve
from lit_llm.data.prompts import Prompt
from lit_llm.generation.fast import Decoding, compile_now, fast_copy
from lit_llm.generation.generate import generate
from lit_llm.generation.infill import fill, masked_ids
from lit_llm.generation.sampling import Sampling
from lit_llm.model.gpt import GPT
from lit_llm.model.native import cache_folder
from lit_llm.tokenizer import Message, Tokenizer
from lit_llm.training.allocator import keep_freed_memory


@dataclass  # not frozen: Lightning copies what predict_step returns field by field
class Answer:
    """What came of one prompt."""

    prompt: str
    """What was asked, the last turn of a conversation"""

    text: str
    """The answer; for a masked language model the prompt with its masks filled"""

    finish_reason: str
    """stop_token, stop_string, length or context; filled for masks"""

    expected: str | None = None
    """The right answer, where one is known"""

    kind: str | None = None
    """The kind of question, where one is known"""

    correct: bool | None = None
    """Whether the answer is an accepted one, where those are known"""

    candidates: list[list[tuple[str, float]]] | None = None
    """For each mask, tokens and their probabilities, the likeliest first"""

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Predictor(L.LightningModule):
    """Answers prompts with the model, the tokenizer and the chat template of a checkpoint.

    Args:
        ckpt_path: a checkpoint or a run's folder; comes from --ckpt_path
        sampling: how to continue; comes from --sampling
        decoding: how to compute it; comes from --decoding
        chat: put plain prompts into the chat template; null: if the model was trained on chats
        top_n: candidates for each [MASK] of a masked language model
    """

    def __init__(
        self,
        ckpt_path: str | None = None,
        sampling: Sampling | None = None,
        chat: bool | None = None,
        top_n: int = 5,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__()
        if ckpt_path is None:
            raise ValueError(
                "predict needs a model, got no checkpoint: give --ckpt_path checkpoints/RUN"
            )
        with asked_by("--ckpt_path"):
            self.folder = resolve(ckpt_path)
        self.sampling = sampling or Sampling()
        self.decoding = decoding or Decoding()
        self._fast: list[GPT] = []  # in a list, for its weights are no parameters of this module
        self.chat = chat
        self.top_n = top_n
        self.gpt: GPT | None = None

    def configure_model(self) -> None:
        if self.gpt is not None:
            return
        self.gpt, bundle = load_model(self.folder)
        if bundle.tokenizer is None:
            raise ValueError(f"{self.folder} holds no tokenizer: it cannot read a prompt")
        self.tokenizer: Tokenizer = bundle.tokenizer
        self.bidirectional = bool(bundle.meta["bidirectional"])
        pieces = map(self.tokenizer.token_bytes, range(self.tokenizer.vocab_size))
        self.words_have_spaces = any(len(piece) > 1 and piece[:1] == b" " for piece in pieces)
        if self.chat is None:
            self.chat = bool(bundle.meta["chat"])

    def on_predict_start(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[Answer]:
        return self._fill(batch) if self.bidirectional else self._continue(batch)

    def _continue(self, prompts: list[Prompt]) -> list[Answer]:
        gpt, chat = self._decoder(), bool(self.chat)
        results = generate(
            gpt,
            [self._ids(prompt) for prompt in prompts],
            self.sampling,
            stop_ids=self.tokenizer.stop_ids(chat=chat),
            forbidden_ids=self.tokenizer.unsaid_ids(gpt.config.vocab_size, chat=chat),
            token_bytes=self.tokenizer.token_bytes,
        )
        return [
            Answer(
                prompt=_shown(prompt),
                text=result.text,
                finish_reason=result.finish_reason,
                expected=prompt.expected,
                kind=prompt.kind,
                correct=None if prompt.grade is None else prompt.grade(result.text),
            )
            for prompt, result in zip(prompts, results, strict=True)
        ]

    def _decoder(self) -> GPT:
        """The model to generate with, made at the first prompt: its device and dtype are known."""
        assert self.gpt is not None
        if self.decoding == Decoding():
            return self.gpt
        if not self._fast:
            before = perf_counter()
            fast = fast_copy(self.gpt, self.decoding)
            if self.decoding.compile:
                compile_now(fast)
                seconds, folder = perf_counter() - before, cache_folder()
                print(
                    f"compiled the decoding step in {seconds:.0f} s; the next start reads {folder}"
                )
            self._fast.append(fast)
        return self._fast[0]

    def _ids(self, prompt: Prompt) -> list[int]:
        template = self.tokenizer.chat_template
        if prompt.messages is not None:
            return template.prompt(self.tokenizer, prompt.messages)
        assert prompt.text is not None
        if self.chat and not prompt.is_beginning:
            return template.prompt(self.tokenizer, [Message("user", prompt.text)])
        return self.tokenizer.document(self.tokenizer.encode(prompt.text))

    def _fill(self, prompts: list[Prompt]) -> list[Answer]:
        assert self.gpt is not None
        mask_id = self.tokenizer.special_id("mask")
        ids = [
            masked_ids(
                _shown(prompt),
                self.tokenizer.encode,
                mask_id,
                before=[self.tokenizer.special_id("bos")],
                after=[self.tokenizer.special_id("eos")],
                takes_space=self.words_have_spaces,
            )
            for prompt in prompts
        ]
        ranked = fill(
            self.gpt,
            ids,
            mask_id,
            top_n=self.top_n,
            forbidden_ids=set(self.tokenizer.special.values()),
        )
        return [
            Answer(
                prompt=_shown(prompt),
                text=self._filled(row, masks, mask_id),
                finish_reason="filled",
                candidates=[
                    [(self.tokenizer.decode([c.id]), c.probability) for c in mask] for mask in masks
                ],
            )
            for prompt, row, masks in zip(prompts, ids, ranked, strict=True)
        ]

    def _filled(self, ids: list[int], masks: list[Any], mask_id: int) -> str:
        best = iter([mask[0].id for mask in masks])
        return self.tokenizer.decode([next(best) if id == mask_id else id for id in ids])


def _shown(prompt: Prompt) -> str:
    return prompt.text if prompt.messages is None else prompt.messages[-1].content  # type: ignore[return-value]
