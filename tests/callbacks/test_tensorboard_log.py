from time import sleep

import lightning as L
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from lit_llm.callbacks import Checkpoint, TensorBoardLog, Throughput


def test_a_resumed_run_shows_every_step_once(fit, tmp_path):
    run = tmp_path / "run"
    fit([Throughput(), Checkpoint(every_n_steps=3)], logger=TensorBoardLog(str(run)), max_steps=6)
    sleep(1.1)  # TensorBoard reads files in the order of the seconds in their names
    checkpoint = str(run / "step-00000003")
    fit([Throughput()], logger=TensorBoardLog(str(run)), max_steps=8, ckpt_path=checkpoint)

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8]
    assert [event.step for event in events.Scalars("val/loss")] == [3, 6]
    assert not (run / "tensorboard" / "hparams.yaml").exists()


def test_validation_alone_writes_nothing(fit, tiny_lm, tiny_data, tmp_path):
    log = TensorBoardLog(str(tmp_path / "alone"))
    trainer = L.Trainer(accelerator="cpu", logger=log, enable_checkpointing=False)
    trainer.validate(tiny_lm(), datamodule=tiny_data(), verbose=False)
    assert not (tmp_path / "alone").exists()


def test_all_metrics_of_a_step_are_one_record(tmp_path):
    log = TensorBoardLog(str(tmp_path))
    log.begin(0)
    log.log_metrics({"a": 1.0, "b": 2.0}, step=5)
    log.log_metrics({"c": 3.0}, step=5)
    log.save()
    log.log_metrics({"a": 4.0}, step=6)
    log.finalize("success")
    assert records(tmp_path) == [(5, {"a": 1.0, "b": 2.0, "c": 3.0}), (6, {"a": 4.0})]


def test_what_stands_behind_a_checkpoint_does_not_wait_in_memory(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(SummaryWriter, "flush", lambda _: flushed.append(log._step))
    log = TensorBoardLog(str(tmp_path))
    log.begin(0)
    for step in range(1, 5):
        if step == 3:
            log.after_save_checkpoint(None)  # in Lightning's order: its step is logged behind it
        log.log_metrics({"a": 0.5}, step)
        log.save()
    assert flushed == [2, 3]


def records(folder) -> list[tuple[int, dict[str, float]]]:
    """What is in the only file, record by record."""
    (path,) = (folder / "tensorboard").glob("events.*")
    events = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
    found = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events]
    return [record for record in found if record[1]]
