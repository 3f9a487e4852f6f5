import dataclasses

import pytest
from jsonargparse import ArgumentParser

from lit_llm.data.prompt_data import PromptData
from lit_llm.data.prompts import Prompt
from lit_llm.tokenizer import Message


def prompts(data):
    return [prompt for batch in data.predict_dataloader() for prompt in batch]


def test_prompts_come_in_batches_and_in_their_order():
    data = PromptData(prompts=["long one here", "b", "c"], batch_size=2)
    batches = list(data.predict_dataloader())
    assert [len(batch) for batch in batches] == [2, 1]
    assert prompts(data)[2] == Prompt(2, text="c")


def test_prompts_come_from_a_file(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    assert [prompt.text for prompt in prompts(PromptData(file=str(tmp_path / "p.txt")))] == [
        "one",
        "two",
    ]


@dataclasses.dataclass
class Question:
    prompt: str
    answer: str
    kind: str
    is_chat: bool

    def grade(self, reply: str) -> bool:
        return reply in (self.answer, self.answer[:3])


class Quiz:
    def questions(self) -> list[Question]:
        return [Question("Who?", "Anna", "name", True)]


def test_prompts_come_from_a_quiz():
    [prompt] = prompts(PromptData(questions=Quiz()))
    assert prompt.messages == (Message("user", "Who?"),)
    assert (prompt.expected, prompt.kind, prompt.is_beginning) == ("Anna", "name", False)
    assert [prompt.grade(reply) for reply in ("Anna", "Ann", "An")] == [True, True, False]


def test_a_quiz_can_be_given_in_yaml(tmp_path, monkeypatch):
    (tmp_path / "my_quiz.py").write_text(
        "from types import SimpleNamespace\n"
        "class Sums:\n"
        "    def __init__(self, n: int) -> None:\n"
        "        self.n = n\n"
        "    def questions(self) -> list:\n"
        "        one = SimpleNamespace(prompt='1 + 1 =', answer='2', grade=None, kind='sum',\n"
        "                              is_chat=False)\n"
        "        return [one] * self.n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(PromptData, "data")
    quiz = {"class_path": "my_quiz.Sums", "init_args": {"n": 3}}
    config = parser.instantiate_classes(parser.parse_object({"data": {"questions": quiz}}))
    assert prompts(config.data)[2] == Prompt(2, "1 + 1 =", None, "2", None, "sum", True)


@pytest.mark.parametrize(
    ("sources", "got"),
    [({}, "none"), ({"prompts": []}, "data.prompts"), ({"prompts": ["a"], "file": "b"}, "and")],
)
def test_prompts_need_exactly_one_source(sources, got):
    with pytest.raises(ValueError, match=rf"one source, got .*{got}(.|\n)*--data.prompts"):
        PromptData(**sources)
