"""Prompts to answer, as the Trainer takes them for `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from lit_llm.data.prompts import Prompt, Questions, from_file, from_questions, from_texts


class PromptData(L.LightningDataModule):
    """Prompts for `predict`, in their order; give one of the three sources.

    Args:
        prompts: the prompts themselves
        file: a text file with one per line, or JSONL with "prompt" or "messages" in each line
        questions: a test with known answers, such as the village's quiz
        batch_size: prompts that are answered together

    Raises:
        ValueError: no source is given, or several.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        file: str | None = None,
        questions: Questions | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        sources = {"prompts": prompts, "file": file, "questions": questions}
        given = [f"data.{name}" for name, source in sources.items() if source is not None]
        if len(given) != 1 or prompts == []:
            raise ValueError(
                f"predict needs prompts from one source, got {' and '.join(given) or 'none'}:\n"
                """give --data.prompts '["Hello"]', or --data.file prompts.txt"""
            )
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size} must be at least 1")
        self._prompts = prompts
        self._file = file
        self._questions = questions
        self.batch_size = batch_size

    def transfer_batch_to_device(
        self, batch: list[Prompt], device: torch.device, dataloader_idx: int
    ) -> list[Prompt]:
        """Nothing moves: prompts are text, and become tokens where the model is."""
        return batch

    def records(self) -> list[Prompt]:
        """All prompts, whatever the source.

        Raises:
            ValueError: the file is missing or has a bad line.
        """
        if self._file is not None:
            return from_file(Path(self._file))
        if self._questions is not None:
            return from_questions(self._questions)
        return from_texts(self._prompts or [])

    def predict_dataloader(self) -> DataLoader[Prompt]:
        """Lists of at most `batch_size` prompts."""
        prompts = cast(Dataset[Prompt], self.records())  # a list is a dataset, if not by its type
        return DataLoader(prompts, batch_size=self.batch_size, collate_fn=_as_they_are)


def _as_they_are(prompts: list[Prompt]) -> list[Prompt]:
    return prompts
