import pytest

from lit_llm.training.resume import compare, compare_data

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
    with pytest.raises(ValueError, match=rf"^{key}=7, but this run was made with .*--run NAME.*$"):
        compare(RUN, changed(key, 7))


@pytest.mark.parametrize(
    ("was", "now"), [("32-true", "bf16-true"), (None, "64-true"), ("bf16-true", "bf16-mixed")]
)
def test_weights_do_not_change_their_dtype_within_a_run(was, now):
    old = {**RUN, "trainer": {"precision": was}}
    with pytest.raises(ValueError, match=rf"trainer.precision={now} keeps the weights in .*float"):
        compare(old, {**RUN, "trainer": {"precision": now}})


def test_another_precision_of_the_same_weights_is_applied_and_said():
    old, new = ({**RUN, "trainer": {"precision": given}} for given in ("32-true", "bf16-mixed"))
    assert compare(old, new) == ["trainer.precision: 32-true -> bf16-mixed from here on"]
    for spelling in None, 32, "32":  # three more ways to say 32-true
        assert compare(old, {**RUN, "trainer": {"precision": spelling}}) == []


def test_what_is_not_given_is_called_the_default():
    with pytest.raises(ValueError, match="=7, but this run was made with the default, and"):
        compare(RUN, changed("model.objective.init_args.share", 7))


def test_a_run_that_is_continued_does_not_also_begin_from_old_weights():
    with pytest.raises(ValueError, match=r"model\.init_from=base starts a run from old weights"):
        compare(RUN, changed("model.init_from", "base"))
    began = changed("model.init_from", "base")
    assert compare(began, began) == []
    (line,) = compare(began, changed("model.init_from", "moved/base"))
    assert line.startswith("model.init_from: base -> moved/base has no effect")


def test_another_key_for_a_hub_makes_no_other_run():
    masked, none = changed("data.init_args.hub.token", "***"), RUN
    assert compare(none, masked) == compare(masked, none) == []
    with pytest.raises(ValueError, match=r"data\.init_args\.hub\.token"):
        compare(none, changed("data.init_args.hub.token", "*"))


def test_a_tokenizer_and_a_text_of_the_same_name_are_known_by_their_content():
    data = {"tokenizer": "a1", "fingerprint": "b2"}
    compare_data(data, data, continues=True)
    for continues in True, False:
        with pytest.raises(ValueError, match=r"data\.tokenizer is not the one"):
            compare_data(data, {**data, "tokenizer": "a2"}, continues=continues)
    with pytest.raises(ValueError, match=r"the text behind data\.corpus has changed"):
        compare_data(data, {**data, "fingerprint": "b3"}, continues=True)
    compare_data(data, {**data, "fingerprint": "b3"}, continues=False)  # a loss on other text


def test_a_run_from_before_a_field_of_the_network_was_there_goes_on():
    old = {"model": {"gpt": {"n_layer": 2}}}
    assert (
        compare(old, {"model": {"gpt": {"n_layer": 2, "full_layers": 0, "qkv_bias": False}}}) == []
    )
    with pytest.raises(ValueError, match=r"model\.gpt\.qkv_bias=True"):
        compare(old, {"model": {"gpt": {"n_layer": 2, "qkv_bias": True}}})
