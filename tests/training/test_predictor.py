import json

import pytest

from lit_llm.data.prompts import Prompt
from lit_llm.generation.fast import Decoding
from lit_llm.generation.sampling import Sampling
from lit_llm.tokenizer import ChatTemplate, Message
from lit_llm.training import predictor as predictor_file
from lit_llm.training.predictor import Answer, Predictor

GREEDY = Sampling(temperature=0.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def predictor():
    def predictor(folder, **settings) -> Predictor:
        module = Predictor(str(folder), GREEDY, **settings)
        module.configure_model()
        return module

    return predictor


def test_a_chat_model_reads_a_prompt_as_a_turn_of_the_user(predictor, finetuned):
    chat = predictor(finetuned)
    turn = ChatTemplate().prompt(chat.tokenizer, [Message("user", "Who is Anna?")])
    assert chat._ids(Prompt(0, "Who is Anna?")) == turn
    assert chat._ids(Prompt(0, None, (Message("user", "Who is Anna?"),))) == turn


def test_a_base_model_continues_a_prompt_as_a_text(predictor, pretrained):
    base = predictor(pretrained)
    ids = [base.tokenizer.special["bos"], *base.tokenizer.encode("Anna is")]
    assert base._ids(Prompt(0, "Anna is")) == ids


def test_the_user_decides_over_the_template(predictor, finetuned):
    plain = predictor(finetuned, chat=False)
    assert plain._ids(Prompt(0, "Anna is"))[0] == plain.tokenizer.special["bos"]
    assert plain._ids(Prompt(0, "Anna is"))[1:] == plain.tokenizer.encode("Anna is")


def test_the_beginning_of_a_text_is_completed_even_by_a_chat_model(predictor, finetuned):
    chat = predictor(finetuned)
    prompt = Prompt(0, "Anna works as a", is_beginning=True)
    assert chat._ids(prompt)[1:] == chat.tokenizer.encode("Anna works as a")


def test_an_answer_does_not_depend_on_what_else_is_asked(predictor, finetuned):
    chat = predictor(finetuned)
    prompts = [Prompt(i, text) for i, text in enumerate(("Hi", "Where does Anna live now?", "?"))]
    together = [answer.text for answer in chat.predict_step(prompts, 0)]
    alone = [chat.predict_step([prompt], 0)[0].text for prompt in prompts]
    assert together == alone


def test_packed_weights_answer_alike(predictor, finetuned):
    prompts = [Prompt(i, text) for i, text in enumerate(("Hi", "Where does Anna live now?"))]
    packed = predictor(finetuned, decoding=Decoding(weights="packed"))
    expected = [answer.text for answer in predictor(finetuned).predict_step(prompts, 0)]
    parameters = set(packed.state_dict())
    assert [answer.text for answer in packed.predict_step(prompts, 0)] == expected
    assert set(packed.state_dict()) == parameters  # the copy is no part of the module


def test_on_a_cpu_the_memory_of_a_prompt_is_kept_for_the_next_one(
    predictor, finetuned, monkeypatch
):
    calls = []
    monkeypatch.setattr(predictor_file, "keep_freed_memory", lambda: calls.append(1))
    predictor(finetuned).on_predict_start()
    assert calls == [1]


def test_an_answer_is_graded_where_the_right_one_is_known(predictor, finetuned):
    chat = predictor(finetuned)
    right = chat.predict_step([Prompt(0, "Who?")], 0)[0].text
    prompts = [
        Prompt(0, "Who?", grade=lambda reply: reply == right, kind="who", expected=right),
        Prompt(1, "Who?", grade=lambda reply: False),
        Prompt(2, "Who?"),
    ]
    answers = chat.predict_step(prompts, 0)
    assert [answer.correct for answer in answers] == [True, False, None]
    assert (answers[0].kind, answers[0].expected) == ("who", right)


def test_no_control_token_is_ever_written(predictor, pretrained):
    base = predictor(pretrained)
    answer = base.predict_step([Prompt(0, "Anna")], 0)[0]
    assert answer.finish_reason in ("length", "stop_token", "context")
    assert not any(f"<{name}>" in answer.text for name in base.tokenizer.special)


def test_what_is_not_known_is_left_out_of_the_file():
    answer = Answer("Who?", "Anna", "stop_token", correct=False)
    assert json.loads(json.dumps(answer.plain())) == {
        "prompt": "Who?",
        "text": "Anna",
        "finish_reason": "stop_token",
        "correct": False,
    }


def test_without_a_checkpoint_there_is_nothing_to_predict_with():
    with pytest.raises(ValueError, match="give --ckpt_path checkpoints/RUN"):
        Predictor()
