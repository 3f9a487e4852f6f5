from time import sleep

import lightning as L
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
