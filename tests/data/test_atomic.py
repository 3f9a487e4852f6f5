import pytest

from lit_llm.data.atomic import new_folder, remove_leftovers


def test_the_folder_appears_only_when_the_block_is_done(tmp_path):
    target = tmp_path / "a" / "b"
    with new_folder(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_an_error_leaves_nothing(tmp_path):
    def fail():
        with new_folder(tmp_path / "b") as folder:
            (folder / "file").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_the_first_stays(tmp_path):
    target = tmp_path / "b"
    with new_folder(target) as late:
        (late / "file").write_text("late")
        with new_folder(target) as early:
            (early / "file").write_text("early")
    assert (target / "file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "scan" / "abc.tmp-12-34").mkdir(parents=True)
    (tmp_path / "scan" / "abc.tmp-12-34" / "file").write_text("half")
    (tmp_path / "scan" / "abc").mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in (tmp_path / "scan").iterdir()] == ["abc"]


def test_only_a_durable_folder_waits_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("lit_llm.data.atomic.sync", synced.append)
    for name, durable in (("a", True), ("b", False)):
        with new_folder(tmp_path / name, durable=durable) as folder:
            (folder / "file").write_text("x")
        assert (tmp_path / name / "file").exists()
    assert [path.name.partition(".tmp-")[0] for path in synced] == ["file", "a", tmp_path.name]
