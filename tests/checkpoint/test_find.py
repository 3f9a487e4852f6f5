import re
from pathlib import Path

import pytest

from lit_llm.checkpoint import manifest
from lit_llm.checkpoint.find import checkpoints, choose, newest_valid, resolve
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.manifest import CheckpointError


def _writer(content: str):
    def write(folder: Path) -> None:
        (folder / "name").write_text(content)

    return write


@pytest.fixture
def run(tmp_path) -> Path:
    """Steps 9, 20 and 100, a best one, a save in progress, and folders that are no checkpoints."""
    folder = tmp_path / "quickstart" / "pretrain"
    for name in ("step-00000100", "step-9", "step-00000020", "best"):
        write_folder(folder / name, _writer(name))
    write_folder(folder / "step-00000300.tmp-1-00c0ffee", lambda inner: None)
    (folder / "samples").mkdir()
    (folder / "metrics.csv").write_text("step,loss\n")
    return folder


def test_checkpoints_are_sorted_by_step_not_by_name(run):
    names = [path.name for path in checkpoints(run)]
    assert names == ["best", "step-9", "step-00000020", "step-00000100"]


def test_a_later_save_of_the_same_step_is_newer(tmp_path):
    for name in ("step-5-v10", "step-5-v2", "step-5"):
        write_folder(tmp_path / name, lambda inner: None)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-5", "step-5-v2", "step-5-v10"]


def test_the_newest_checkpoint_is_taken_when_all_are_intact(run):
    assert newest_valid(run) == (run / "step-00000100", [])


def test_damaged_checkpoints_are_passed_over_with_a_reason_each(run):
    (run / "step-00000100" / "name").write_text("step-00000101")
    (run / "step-00000020" / "manifest.json").unlink()
    found, skipped = newest_valid(run)
    assert found == run / "step-9"
    assert "step-00000100/name is damaged" in skipped[0]
    assert "step-00000020 is no complete checkpoint" in skipped[1]


def test_an_unreadable_checkpoint_is_passed_over(run, monkeypatch):
    real = Path.open

    def fail(self, *args, **kwargs):
        if self.parent.name == "step-00000100" and self.name == "name":
            raise OSError(5, "Input/output error", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", fail)
    found, skipped = newest_valid(run)
    assert found == run / "step-00000020"
    assert "Input/output error" in skipped[0]


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert newest_valid(tmp_path / "nothing") == (None, [])


def test_a_checkpoint_a_run_and_last_all_resolve_to_a_folder(run):
    assert resolve(run / "step-9") == run / "step-9"
    assert resolve(str(run)) == run / "step-00000100"
    assert resolve("last", run_dir=run) == run / "step-00000100"


def test_what_is_passed_over_is_warned_of(run):
    (run / "step-00000100" / "name").write_text("step-00000101")
    with pytest.warns(UserWarning, match=r"step-00000100/name is damaged.*with .*step-00000020"):
        assert resolve("last", run_dir=run) == run / "step-00000020"


def _message(which, run_dir=None) -> str:
    with pytest.raises(CheckpointError) as error:
        resolve(which, run_dir)
    message = str(error.value)
    assert message.count("\n") <= 2
    return message


def test_a_mistyped_step_is_answered_with_the_nearest_one(run):
    message = _message(run / "step-00000021")
    assert f"no checkpoint {run}/step-00000021: did you mean {run}/step-00000020?" in message
    assert f"{run} holds best, step-9, step-00000020, step-00000100" in message


def test_a_mistyped_run_is_answered_with_the_nearest_one(run):
    root = run.parents[1]
    message = _message(root / "quickstrat" / "pretrain")
    assert f"did you mean {run}?" in message
    assert f"{root} holds quickstart/pretrain" in message


def test_a_folder_of_runs_is_answered_with_the_runs(run):
    message = _message(run.parent)
    listed = f"{run.parent} holds pretrain: give the path of one"
    assert message == f"no checkpoint in {run.parent}\n{listed}"


def test_of_many_checkpoints_the_newest_five_are_listed(tmp_path):
    for step in range(1, 9):
        write_folder(tmp_path / f"step-{step}", lambda inner: None)
    assert f"{tmp_path} holds 3 more, step-4, step-5, step-6, step-7, step-8" in _message(
        tmp_path / "step-60"
    )


def test_a_place_with_nothing_says_so(tmp_path):
    nothing = f"{tmp_path} holds no checkpoint: give the path of another one"
    assert _message(tmp_path) == f"no checkpoint in {tmp_path}\n{nothing}"
    assert "of which run?" in _message("last")


def test_when_all_are_damaged_the_newest_reason_is_given(run):
    for folder in checkpoints(run):
        (folder / "name").write_text("?")
    message = _message("last", run)
    assert "only 4 damaged" in message
    assert "step-00000100/name is damaged" in message


def test_a_file_of_a_checkpoint_is_answered_with_its_folder(run):
    assert f"give {run / 'step-9'}" in _message(run / "step-9" / "name")


def test_an_interrupted_save_is_no_checkpoint(run):
    assert "interrupted save" in _message(run / "step-00000300.tmp-1-00c0ffee")


def test_a_choice_says_what_was_chosen_and_why(run):
    newest, older = run / "step-00000100", run / "step-00000020"
    text = str(choose("last", run))
    assert re.fullmatch(
        rf"going on from {newest} \(the newest valid one, verified 13 bytes in 0\.\d s\)", text
    )
    (newest / "name").write_text("step-00000101")
    choice = choose("last", run)
    assert choice.folder == older
    assert choice.why.endswith(
        f"; passed over: {newest}/name is damaged: its SHA-256 is not the manifest's: "
        "the content has changed"
    )
    assert str(choose(older)) == f"going on from {older} (as asked for)"


def test_a_process_that_is_not_the_first_looks_at_sizes_only(run):
    (run / "step-00000100" / "name").write_text("step-00000101")
    assert choose("last", run, content=False) == (run / "step-00000100", "the newest valid one")
    (run / "step-00000100" / "name").write_text("step")
    choice = choose("last", run, content=False)
    assert choice.folder == run / "step-00000020"
    assert "4 bytes instead of 13" in choice.why


def test_descriptions_of_a_checkpoint_that_is_named_are_checked_at_once(run):
    """They are read before the tensors: to compare the configuration, say."""
    (run / "step-9" / "name").write_text("step-8")
    assert "step-9/name is damaged" in _message(run / "step-9")


def test_the_checkpoint_of_a_later_version_is_not_passed_over(run, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    write_folder(run / "step-00000200", _writer("new"))
    monkeypatch.undo()
    message = _message("last", run)
    assert message == (
        f"{run}/step-00000200/manifest.json has format 2, this lit-llm reads up to 1: "
        "install a later lit-llm"
    )
    assert _message(run / "step-00000200") == message
