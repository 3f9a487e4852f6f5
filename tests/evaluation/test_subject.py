import pytest
import torch

from lit_llm.checkpoint.bundle import write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.evaluation.subject import Subject, load_subject
from lit_llm.tokenizer import ChatTemplate, Message
from lit_llm.tokenizer.chat import Turn
from tests.evaluation.letters import BOS, END, EOS, Letters, random_gpt

LETTERS = Letters("abc")
DEFAULTS = {"device": "cpu", "precision": "saved", "batch_size": 2}


@pytest.fixture
def saved(tmp_path):
    def saved(tokenizer=LETTERS, dtype=torch.float32, **meta):
        gpt = random_gpt(LETTERS, max_seq_len=8).to(dtype)
        meta = {"model": gpt_to_plain(gpt.config), "bidirectional": False, "chat": False, **meta}
        write_folder(
            tmp_path / "model",
            lambda folder: write_bundle(folder, meta, gpt.state_dict(), tokenizer),
        )
        return tmp_path / "model"

    return saved


def test_a_checkpoint_is_all_that_is_needed(saved):
    subject = load_subject(saved(chat=True, step=7), **DEFAULTS)
    assert subject.chat is True
    assert subject.tokenizer.letters == "abc"
    assert not subject.gpt.training
    assert subject.about() == {
        "step": 7,
        "parameters": sum(p.numel() for p in subject.gpt.parameters()),
        "device": "cpu",
        "dtype": "float32",
        "context": 8,
    }


@pytest.mark.parametrize(
    ("stored", "precision", "expected"),
    [
        (torch.bfloat16, "saved", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
def test_numbers_are_as_saved_or_as_asked_for(saved, stored, precision, expected):
    subject = load_subject(saved(dtype=stored), **{**DEFAULTS, "precision": precision})
    assert {parameter.dtype for parameter in subject.gpt.parameters()} == {expected}


def test_what_begins_and_ends_a_text():
    subject = Subject(random_gpt(LETTERS, 8), LETTERS, chat=False)
    assert subject.text_ids("ab") == [BOS, *LETTERS.encode("ab")]
    assert (subject.prefix_id, subject.stop_ids) == (BOS, {EOS, END})
    turn = ChatTemplate().prompt(LETTERS, [Message("user", "ab")])
    assert subject.conversation_ids("ab") == turn
    assert subject.conversation_ids([Message("user", "ab")]) == turn


class Bare(Letters):
    """Published without a bos token, and with a template of its own."""

    chat_template = ChatTemplate(
        begin="", user=Turn("{user}", "{eos}"), assistant=Turn("", "{pad}")
    )

    @property
    def special(self):
        return {name: super(Bare, self).special[name] for name in ("eos", "pad", "user")}

    def document(self, ids):
        return list(ids)


def test_a_tokenizer_has_its_own_beginning_template_and_ends():
    subject = Subject(random_gpt(LETTERS, 8), Bare("abc"), chat=True)
    assert subject.text_ids("ab") == LETTERS.encode("ab")
    assert subject.prefix_id == EOS  # something has to predict the first token all the same
    user, pad = (LETTERS.special[name] for name in ("user", "pad"))
    assert subject.conversation_ids("ab") == [user, *LETTERS.encode("ab"), EOS]
    assert subject.stop_ids == {EOS, pad}
    subject.chat = False
    assert subject.stop_ids == {EOS}


def test_an_answer_has_neither_control_tokens_nor_rows_without_a_token():
    subject = Subject(random_gpt(LETTERS, 8), Letters("ab"), chat=False)
    control = set(LETTERS.special.values()) - {EOS, END}
    assert subject.forbidden_ids == {*control, *LETTERS.encode("c")}


def test_a_model_that_fills_masks_is_refused_in_a_line(saved):
    with pytest.raises(ValueError, match=r"fills masks .* validate measures") as refused:
        load_subject(saved(bidirectional=True), **DEFAULTS)
    assert len(str(refused.value).splitlines()) == 1


def test_a_checkpoint_without_a_tokenizer_is_refused(saved):
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_subject(saved(tokenizer=None), **DEFAULTS)


def test_a_device_that_is_not_there_is_refused(saved, monkeypatch):
    folder = saved()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, said in [
        ("cuda:1", "--device cuda:1: PyTorch finds 1 such devices"),
        ("gpu", "--device gpu: give auto, cpu, cuda"),
    ]:
        with pytest.raises(ValueError, match=said):
            load_subject(folder, **{**DEFAULTS, "device": device})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_subject(folder, **{**DEFAULTS, "device": "auto"}).gpt.device.type == "cpu"
