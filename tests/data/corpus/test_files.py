import pickle
import random

import pytest

from lit_llm.data.corpus import TextFiles, files
from lit_llm.data.corpus.files import find_files


def fill(folder, names, text="hello\n"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}{name}")


def test_files_are_found_in_the_order_of_their_names(tmp_path):
    fill(tmp_path, ["b.txt", "a/z.txt", "a.txt", "no.md"])
    assert [name for name, _ in find_files(tmp_path, "**/*.txt")] == ["a.txt", "a/z.txt", "b.txt"]
    assert [name for name, _ in find_files(tmp_path, "*.txt")] == ["a.txt", "b.txt"]
    assert find_files(tmp_path / "no.md", "**/*.txt") == [("no.md", tmp_path / "no.md")]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist \(looked in"):
        find_files(tmp_path / "nowhere", "*")
    with pytest.raises(ValueError, match=r"matches '\*\*/\*\.txt': give corpus\.glob"):
        TextFiles(tmp_path).units()


def test_small_files_share_units_and_a_new_one_changes_one_unit_only(tmp_path):
    draw = random.Random(0)
    fill(tmp_path, [f"{draw.randrange(10**9)}.txt" for _ in range(600)])
    before = TextFiles(tmp_path).units()
    assert 3 <= len(before) <= 40
    assert len({unit.name for unit in before}) == len(before)
    fill(tmp_path, ["5.txt"])
    after = TextFiles(tmp_path).units()
    prints = {unit.fingerprint() for unit in before}
    assert len([unit for unit in after if unit.fingerprint() not in prints]) in (1, 2)


def test_the_fingerprint_follows_content_settings_and_name_but_not_the_place(tmp_path):
    fill(tmp_path / "one", ["a.txt"])
    fill(tmp_path / "two", ["a.txt"])

    def mark(folder, **settings):
        (unit,) = TextFiles(tmp_path / folder, **settings).units()
        return unit.fingerprint()

    same = mark("one")
    assert mark("two") == same
    assert mark("one", document="line") != same
    assert mark("one", document="separator") != mark("one", document="line")
    (tmp_path / "two" / "a.txt").write_text("hellO\na.txt")
    assert mark("two") != same
    (tmp_path / "one" / "a.txt").rename(tmp_path / "one" / "b.txt")
    assert mark("one") != same


def test_a_big_file_of_lines_is_several_units_that_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNIT_BYTES", 1000)
    monkeypatch.setattr(files, "SMALL_FILE", 500)
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(1000)))
    units = TextFiles(tmp_path, document="line").units()
    assert len(units) == 9  # of 8,890 bytes
    found = [text for unit in pickle.loads(pickle.dumps(units)) for text in unit.read()]
    assert [text.text for text in found] == [f"line {i}" for i in range(1000)]
    assert found[700].source == "a.txt:701"
    assert len(TextFiles(tmp_path).units()) == 1


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    fill(tmp_path, ["a.txt"])
    (unit,) = TextFiles(tmp_path).units()

    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)  # root may read whatever the mode says
    with pytest.raises(ValueError, match=r"cannot read .*a\.txt: Permission denied") as error:
        unit.fingerprint()
    assert "corpus.glob" in str(error.value)


def test_files_whose_name_goes_on_with_a_compression_match_too_where_asked_for(tmp_path):
    fill(tmp_path, ["a.txt", "b.txt.gz", "c/d.txt.zst", "e.txt.bak", "f.gz"])
    found = [name for name, _ in find_files(tmp_path, "**/*.txt", compressed=True)]
    assert found == ["a.txt", "b.txt.gz", "c/d.txt.zst"]
    assert [name for name, _ in find_files(tmp_path, "**/*.txt")] == ["a.txt"]
