import json

import pytest

from lit_llm.callbacks import NotFinite
from lit_llm.commands.rewinding import rewinding
from lit_llm.training.guards import Rewind


def attempts(*ends):
    """A run whose attempts end with these exceptions, or well; and the flags that each had."""
    flags = []
    rest = iter(ends)

    def start(more):
        flags.append(list(more))
        end = next(rest)
        if end is not None:
            raise end

    return start, flags


def back(progress=False, limit=2, saved=True):
    rewind = Rewind("weight w is not finite", progress=progress, limit=limit)
    rewind.saved = saved
    return rewind


def test_a_run_that_ends_well_is_started_once():
    start, flags = attempts(None)
    rewinding(start)
    assert flags == [[]]


def test_a_run_that_wants_back_goes_on_from_its_last_checkpoint_and_deletes_nothing(capsys):
    start, flags = attempts(back(), None)
    rewinding(start)
    assert flags == [[], ["--ckpt_path", "last", "--overwrite", "false"]]
    assert "weight w is not finite: going back to the newest checkpoint" in capsys.readouterr().err


def test_a_run_that_has_saved_nothing_begins_again_where_it_began(capsys):
    ends = [back(saved=False), back(progress=True), back(saved=False), None]
    start, flags = attempts(*ends)
    rewinding(start)
    again, last = ["--overwrite", "false"], ["--ckpt_path", "last", "--overwrite", "false"]
    assert flags == [[], again, last, last]  # what the second has saved is there for the fourth
    assert "not finite: going back to where it started" in capsys.readouterr().err


def test_a_run_that_began_with_anothers_checkpoint_begins_with_it_again(
    tiny_fit, pretrained, tmp_path
):
    injury = {"where": "parameter", "steps": [7], "once": str(tmp_path / "once")}
    injury["notes"] = str(tmp_path / "notes")
    callback = {"class_path": "tests.torture.injuries.Injury", "init_args": injury}
    config = tmp_path / "injury.yaml"
    config.write_text(json.dumps({"trainer": {"callbacks": [callback]}}))
    begin = ("--run", "other", "--ckpt_path", str(pretrained), "--trainer.max_steps=8")
    finished = tiny_fit("quickstart/pretrain.yaml", tmp_path, *begin, "-c", str(config))
    assert finished.code == 0, finished.err
    assert "going back to where it started" in finished.err
    steps = [json.loads(line)["step"] for line in (tmp_path / "notes-0.jsonl").open()]
    assert steps == [7, 7, 8]  # the pretrained run ends with step 6


def test_going_back_again_and_again_without_progress_ends_the_run():
    start, flags = attempts(*[back() for _ in range(9)])
    with pytest.raises(NotFinite, match="and so it was after going back 2 times"):
        rewinding(start)
    assert len(flags) == 3


def test_a_checkpoint_in_between_begins_the_count_anew():
    ends = [back(), back(), back(progress=True), back(), None]
    start, flags = attempts(*ends)
    rewinding(start)
    assert len(flags) == 5


def test_other_errors_pass():
    start, _ = attempts(KeyError("x"))
    with pytest.raises(KeyError):
        rewinding(start)
