import math

import pytest
import torch

from lit_llm.evaluation.base import Options
from lit_llm.evaluation.bits_per_byte import BitsPerByte, windows
from lit_llm.evaluation.subject import Subject
from tests.evaluation.letters import BOS, Letters, bigrams, random_gpt

LETTERS = Letters("abé\r\n")
ODDS = {  # after "": a has 1/2, so one bit
    "": {"a": 0.5, "b": 0.25},
    "a": {"a": 0.25, "b": 0.125, "é": 0.5},
    "b": {"a": 0.5, "é": 0.0625},
    "?": {"a": 0.5, "\r": 0.25, "\n": 0.125},
}


def nothing(done, total):
    pass


@pytest.fixture
def measured(tmp_path):
    """Metrics and counts of a text."""

    def measured(text, context=64, gpt=None, **options):
        file = tmp_path / "text.txt"
        file.write_bytes(text.encode())
        gpt = gpt or bigrams(LETTERS, ODDS, context)
        task = BitsPerByte("it", file)
        result = task.run(Subject(gpt, LETTERS, chat=False), Options(**options), nothing)[0]
        return {metric.name: metric for metric in result.metrics}, result.counts

    return measured


def test_bits_are_counted_by_hand_and_bytes_in_utf8(measured):
    # a|begin 1 bit, a|a 2, b|a 3, é|b 4, a|é 1: 11 bits; é has two bytes, so there are 6
    metrics, counts = measured("aabéa")
    assert metrics["bits_per_byte"].value == pytest.approx(11 / 6, abs=1e-5)
    assert metrics["nats_per_token"].value == pytest.approx(11 * math.log(2) / 5, abs=1e-5)
    assert counts == {"documents": 1, "windows": 1, "tokens": 5, "bytes": 6}


class Lossy(Letters):
    """Drops line ends."""

    def encode(self, text):
        return super().encode(text.replace("\n", ""))


def test_bytes_that_a_tokenizer_drops_count_too(tmp_path):
    (tmp_path / "text.txt").write_text("a\na\n\n")
    task = BitsPerByte("it", tmp_path / "text.txt")
    subject = Subject(bigrams(LETTERS, ODDS, 64), Lossy(LETTERS.letters), chat=False)
    result = task.run(subject, Options(), nothing)[0]
    assert result.metrics[0].value == pytest.approx(3 / 5, abs=1e-5)  # a|begin 1 bit, a|a 2
    assert result.counts["bytes"] == 5


def test_windows_change_nothing_where_only_the_last_letter_matters(measured):
    for stride in (1, 2, 3):
        metrics, counts = measured("aabéa", context=3, stride=stride)
        assert metrics["bits_per_byte"].value == pytest.approx(11 / 6, abs=1e-5)
        assert (counts["tokens"], counts["bytes"]) == (5, 6)
        assert counts["windows"] == 1 + math.ceil(2 / stride)


def test_line_ends_are_the_bytes_that_they_are(measured):
    # a|begin 1, é|a 1, \r|é 2, \n|\r 3: 7 bits in 5 bytes
    metrics, counts = measured("aé\r\n")
    assert metrics["bits_per_byte"].value == pytest.approx(7 / 5, abs=1e-5)
    assert counts["bytes"] == 5


def test_the_windows_of_the_docstring():
    assert list(windows(range(7), 99, context=4, stride=2)) == [
        ([99], range(4)),
        (range(1, 4), range(4, 6)),
        (range(2, 6), range(6, 7)),
    ]
    assert list(windows([], 99, context=4, stride=2)) == []


@pytest.mark.parametrize("context", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 4, 5, 6, 23])
def test_each_token_is_predicted_once_in_windows_that_are_full(context, length):
    for stride in range(1, context + 1):
        pairs = list(windows(list(range(length)), -1, context=context, stride=stride))
        assert [id for pair in pairs for id in pair.continuation] == list(range(length))
        for pair in pairs[1:]:
            assert len(pair.context) + len(pair.continuation) == context + 1
            assert pair.context[-1] + 1 == pair.continuation[0]


def test_a_stride_of_one_gives_each_token_all_the_context_that_fits(measured):
    gpt = random_gpt(LETTERS, max_seq_len=4)
    text = "aabéabbaé\r\n"
    ids = [BOS, *LETTERS.encode(text)]
    nats = 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            logits = gpt(torch.tensor([ids[max(0, place - 4) : place]]))[0, -1]
            nats -= logits.log_softmax(-1)[ids[place]].item()
    metrics, _ = measured(text, gpt=gpt, stride=1)
    expected = nats / math.log(2) / len(text.encode())
    assert metrics["bits_per_byte"].value == pytest.approx(expected, abs=1e-5)


def test_files_of_a_folder_are_documents_that_begin_anew(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in {"1.txt": "aa", "sub/2.md": "b", "empty": "", ".hidden": "zzz"}.items():
        (tmp_path / name).write_text(text)
    task = BitsPerByte("it", tmp_path)
    subject = Subject(bigrams(LETTERS, ODDS, 64), LETTERS, chat=False)
    result = task.run(subject, Options(), nothing)[0]
    assert result.counts == {"documents": 2, "windows": 2, "tokens": 3, "bytes": 3}
    # 1 + 2 bits for aa, 2 for b at a beginning
    assert result.metrics[0].value == pytest.approx(5 / 3, abs=1e-5)
    # r = 5/3; (3 - 2r)^2 + (2 - r)^2 = 2/9; sqrt(2 * 2/9) / 3 bytes
    assert result.metrics[0].stderr == pytest.approx(math.sqrt(4 / 9) / 3, abs=1e-5)


def test_a_limit_leaves_the_rest_of_the_windows_out(measured):
    metrics, counts = measured("aabéa", context=2, stride=2, limit=1)
    assert (counts["windows"], counts["tokens"], counts["bytes"]) == (1, 2, 2)
    assert metrics["bits_per_byte"].value == pytest.approx(3 / 2, abs=1e-5)
    assert metrics["bits_per_byte"].stderr is None


def test_what_is_no_text_is_refused(tmp_path, measured):
    for name, content, said in [
        ("binary", b"ab\xff", r"binary is no text in UTF-8: byte 2 is 0xff"),
        ("empty", b"", "holds no text"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=said):
            BitsPerByte("it", tmp_path / name)
    with pytest.raises(ValueError, match="no file or folder"):
        BitsPerByte("it", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="--stride 9: the model reads 4 tokens at once"):
        measured("aab", context=4, stride=9)
