import datasets
import pytest

from lit_llm.data.corpus import HuggingFaceDataset, huggingface
from lit_llm.data.corpus.base import Bad, Text

ROWS = [f"row {i}" for i in range(1, 12)]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    data = datasets.Dataset.from_dict({"text": ROWS, "n": list(range(11))})
    datasets.DatasetDict({"train": data, "test": data.select([3])}).save_to_disk(tmp_path / "d")
    return str(tmp_path / "d")


def texts(corpus):
    return [record.text for unit in corpus.units() for record in unit.read()]


def test_a_saved_data_set_is_read_in_runs_of_rows(saved, monkeypatch):
    monkeypatch.setattr(huggingface, "ROWS_PER_UNIT", 4)
    units = HuggingFaceDataset(saved).units()
    assert [len(list(unit.read())) for unit in units] == [4, 4, 3]
    assert next(iter(units[1].read())) == Text("row 5", "d/default/train:5")
    assert texts(HuggingFaceDataset(saved)) == ROWS
    assert texts(HuggingFaceDataset(saved, split="test")) == ["row 4"]
    assert texts(HuggingFaceDataset(saved, limit=5)) == ROWS[:5]


def test_streaming_gives_the_same_rows(saved):
    assert texts(HuggingFaceDataset(saved, streaming=True)) == ROWS
    assert texts(HuggingFaceDataset(saved, streaming=True, limit=3)) == ROWS[:3]


def test_a_folder_with_data_files_is_read_through_its_own_loader(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    for streaming in (False, True):
        (unit,) = HuggingFaceDataset(str(tmp_path / "d"), streaming=streaming).units()
        first, second = unit.read()
        assert first.text == "a"
        assert isinstance(second, Bad)


def test_rows_can_be_conversations(tmp_path):
    data = datasets.Dataset.from_dict({"prompt": ["Who?"], "response": ["Me."]})
    data.save_to_disk(tmp_path / "d")
    (unit,) = HuggingFaceDataset(str(tmp_path / "d"), conversations=True).units()
    (record,) = unit.read()
    assert [message.content for message in record.messages] == ["Who?", "Me."]


def test_the_fingerprint_follows_the_rows_and_not_how_they_were_made(tmp_path):
    def mark(rows):
        data = datasets.Dataset.from_dict({"text": rows}).filter(lambda row: row["text"] != "no")
        return huggingface.RowsUnit("d", data, 0, len(data), "text").fingerprint()

    assert mark(["a", "b"]) == mark(["a", "no", "b"])
    assert mark(["a", "b"]) != mark(["a", "c"])


def test_a_missing_column_split_or_data_set_is_said_in_two_lines(saved):
    with pytest.raises(ValueError, match="has no column 'body': its columns are text, n"):
        HuggingFaceDataset(saved, field="body").units()
    for name, split in ((saved, "valid"), ("/nowhere/at/all", "train")):
        with pytest.raises(ValueError, match="cannot load") as error:
            HuggingFaceDataset(name, split=split).units()
        assert len(str(error.value).splitlines()) == 2
