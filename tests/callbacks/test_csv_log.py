import csv

import pytest

from lit_llm.callbacks import Checkpoint, CSVLog, Throughput
from lit_llm.callbacks.csv_log import read_rows


@pytest.fixture
def log(tmp_path):
    log = CSVLog(str(tmp_path))
    log.begin(0)
    return log


def write(log, step, **metrics):
    log.log_metrics(metrics, step)
    log.save()


def steps(path):
    return [int(row["step"]) for row in read_rows(path)[1]]


def test_what_is_logged_at_one_step_makes_one_row(log):
    log.log_metrics({"tokens": 123_456_789, "seconds": 1.5}, 10)
    write(log, 10, loss=2.25)
    assert log.path.read_text() == "step,tokens,seconds,loss\n10,123456789,1.5,2.25\n"


def test_a_new_metric_becomes_a_column_and_earlier_rows_stay(log):
    write(log, 1, loss=3.5)
    write(log, 2, val=4.0)
    assert log.path.read_text() == "step,loss,val\n1,3.5,\n2,,4\n"


def test_rows_after_the_resumed_step_are_dropped(log):
    for step in (10, 20, 30):
        write(log, step, loss=float(step))
    resumed = CSVLog(log.save_dir)
    resumed.begin(20)
    write(resumed, 30, loss=-1.0)
    assert log.path.read_text() == "step,loss\n10,10\n20,20\n30,-1\n"


def test_a_line_that_was_cut_off_by_a_kill_is_dropped(log):
    write(log, 10, loss=1.0)
    with log.path.open("a") as file:
        file.write("20,2.3")  # the end of 2.34567 is missing, and nobody could tell
    resumed = CSVLog(log.save_dir)
    resumed.begin(25)
    assert steps(log.path) == [10]


def test_a_new_run_in_an_old_folder_moves_the_old_metrics_aside(log):
    write(log, 10, loss=1.0)
    again = CSVLog(log.save_dir)
    again.begin(0)
    write(again, 5, loss=2.0)
    assert steps(log.path) == [5]
    assert steps(log.path.with_name("metrics-1.csv")) == [10]


def test_validation_alone_writes_nothing(tmp_path):
    log = CSVLog(str(tmp_path))
    write(log, 0, **{"val/loss": 1.0})
    assert not log.path.exists()


def test_training_without_the_clock_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lit_llm\.callbacks\.Throughput"):
        CSVLog(str(tmp_path)).log_metrics({"train/loss": 1.0}, 10)


def test_a_run_resumed_into_its_folder_keeps_one_curve(fit, tmp_path):
    run = tmp_path / "run"
    fit([Throughput(), Checkpoint(every_n_steps=4)], logger=CSVLog(str(run)), max_steps=6)
    before = list(csv.DictReader((run / "metrics.csv").open()))
    assert steps(run / "metrics.csv") == [2, 3, 4, 6, 6]  # validation at 3 and 6

    checkpoint = str(run / "step-00000004")
    fit([Throughput()], logger=CSVLog(str(run)), max_steps=8, ckpt_path=checkpoint)
    after = list(csv.DictReader((run / "metrics.csv").open()))
    assert [int(row["step"]) for row in after] == [2, 3, 4, 6, 6, 8]
    assert after[:3] == before[:3]
    assert list(after[0])[:3] == ["step", "tokens", "seconds"]
    assert float(after[-1]["seconds"]) > float(after[2]["seconds"])


def test_train_metrics_stand_in_the_row_of_their_step(fit, tmp_path):
    fit([Throughput()], logger=CSVLog(str(tmp_path)), max_steps=2)
    (row,) = read_rows(tmp_path / "metrics.csv")[1]
    assert (row["step"], row["tokens"], row["lr"]) == ("2", "102", "0.003")
    assert float(row["train/loss"]) > 0
