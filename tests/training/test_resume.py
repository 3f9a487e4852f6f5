import pytest

from lit_llm.training.resume import compare

RUN = {
    "seed_everything": 1,
    "trainer": {"max_steps": 100, "devices": 1},
    "model": {
        "gpt": {"n_layer": 3},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.1}},
        "schedule": None,
    },
    "data": {"class_path": "TextData", "init_args": {"seq_len": 64, "micro_batch_size": 8}},
}


def changed(path: str, value):
    first, *rest = path.split(".")

    def put(node, names):
        name, *deeper = names
        return {**node, name: put(node.get(name, {}), deeper) if deeper else value}

    return put(RUN, [first, *rest])


def test_the_same_configuration_changes_nothing():
    assert compare(RUN, RUN) == []


@pytest.mark.parametrize(
    "key", ["trainer.devices", "data.init_args.micro_batch_size", "trainer.strategy"]
)
def test_how_the_work_is_shared_out_may_change_in_silence(key):
    assert compare(RUN, changed(key, 4)) == []


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("trainer.max_steps", "trainer.max_steps: 100 -> 200 from here on"),
        ("model.optimizer.init_args.lr", "model.optimizer.init_args.lr: 0.1 -> 200 from here on"),
        ("model.schedule", "model.schedule: None -> 200 from here on"),
    ],
)
def test_the_future_of_a_run_may_change_and_is_said(key, line):
    assert compare(RUN, changed(key, 200)) == [line]


@pytest.mark.parametrize(
    "key",
    [
        "seed_everything",
        "model.gpt.n_layer",
        "model.optimizer.class_path",
        "data.init_args.seq_len",
        "data.init_args.global_batch_size",
    ],
)
def test_what_decides_the_weights_must_not_change(key):
    with pytest.raises(ValueError, match=rf"{key}=7, but this run was made with .*\n.*--run NAME"):
        compare(RUN, changed(key, 7))
