import os

import pytest

from lit_llm.commands.compose import Configuration, merge, parse_value


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_parts_come_first_in_their_order_then_the_recipe_then_later_files(write):
    write("parts/a.yaml", "x: {one: 1, two: 1, three: 1, four: 1}")
    write("parts/b.yaml", "x: {two: 2, three: 2, four: 2}")
    recipe = write(
        "recipes/r.yaml", "parts: [../parts/a.yaml, ../parts/b.yaml]\nx: {three: 3, four: 3}"
    )
    overlay = write("o.yaml", "x: {four: 4}")
    assert Configuration([recipe, overlay]).values == {
        "x": {"one": 1, "two": 2, "three": 3, "four": 4}
    }


def test_the_origin_of_a_key_is_the_last_file_that_gave_it(write):
    part = write("a.yaml", "x: {one: 1, two: 1}")
    recipe = write("r.yaml", "parts: [a.yaml]\nx: {two: 2}")
    origin = Configuration([recipe]).origin
    assert origin["x.one"] == str(recipe.parent / part.name)
    assert origin["x.two"] == str(recipe)


def test_a_changed_class_drops_the_old_arguments():
    old = {"opt": {"class_path": "AdamW", "init_args": {"lr": 1, "weight_decay": 2}}}
    same = merge(old, {"opt": {"class_path": "AdamW", "init_args": {"lr": 5}}})
    assert same["opt"]["init_args"] == {"lr": 5, "weight_decay": 2}
    other = merge(old, {"opt": {"class_path": "SGD", "init_args": {"lr": 5}}})
    assert other["opt"] == {"class_path": "SGD", "init_args": {"lr": 5}}
    assert old["opt"]["class_path"] == "AdamW"


def test_one_class_and_several_named_ones_replace_each_other():
    one, several = {"class_path": "A", "init_args": {"path": "x"}}, {"b": {"corpus": 1}}
    assert merge({"corpus": one}, {"corpus": several}) == {"corpus": several}
    assert merge({"corpus": several}, {"corpus": one}) == {"corpus": one}
    arguments = {"init_args": {"seed": 3}}  # may be given before the class, or after it
    assert merge(arguments, {"class_path": "A"}) == {"class_path": "A", **arguments}


def test_arguments_of_a_class_may_be_written_as_in_flags():
    old = {"data": {"class_path": "A", "init_args": {"seq_len": 8, "corpus": {"b": {"weight": 1}}}}}
    new = {"data": {"seq_len": 9, "corpus": {"b": {"weight": 2}}}}
    assert merge(old, new)["data"] == {
        "class_path": "A",
        "init_args": {"seq_len": 9, "corpus": {"b": {"weight": 2}}},
    }


def test_a_flag_that_changes_a_class_drops_the_old_arguments(write):
    file = write(
        "c.yaml",
        "data: {class_path: A, init_args: {corpus: {class_path: B, init_args: {path: x}}}}",
    )
    configuration = Configuration([file])
    assert configuration.replace_class("data.corpus", "C")
    assert configuration.values["data"]["init_args"]["corpus"] == {"class_path": "C"}
    assert not configuration.replace_class("data.seq_len", "C")


def test_a_flag_can_take_a_class_away(write):
    configuration = Configuration([write("c.yaml", "model: {schedule: {class_path: A}}")])
    assert configuration.replace_class("model.schedule", "null")
    assert configuration.values == {"model": {"schedule": None}}


def test_dotted_keys_merge_like_nested_ones(write):
    write("a.yaml", "model: {gpt: {n_layer: 3, d_model: 8}}")
    recipe = write("r.yaml", "parts: [a.yaml]\nmodel.gpt.n_layer: 2")
    assert Configuration([recipe]).values == {"model": {"gpt": {"n_layer": 2, "d_model": 8}}}


@pytest.mark.parametrize(
    ("text", "value"), [("3e-4", 3e-4), ("1E+2", 100.0), ("12", 12), ("e4", "e4"), ("on", True)]
)
def test_numbers_are_numbers(text, value):
    assert parse_value(text) == value


def test_a_missing_file_is_named_with_its_nearest_neighbour(write):
    file = write("gpt-124m.yaml", "")
    with pytest.raises(ValueError, match=r"gpt124m.yaml: no such .*did you mean .*gpt-124m.yaml"):
        Configuration([file.with_name("gpt124m.yaml")])


def test_a_part_of_itself_is_refused(write):
    write("a.yaml", "parts: [b.yaml]")
    with pytest.raises(ValueError, match="is a part of itself"):
        Configuration([write("b.yaml", "parts: [a.yaml]")])


def test_a_key_given_twice_is_refused_with_its_line(write):
    file = write("a.yaml", "x: 1\ny:\n  z: 1\n  z: 2\n")
    with pytest.raises(ValueError, match=r"a.yaml, line 4: key 'z' is given twice"):
        Configuration([file])


def test_broken_yaml_is_named(write):
    with pytest.raises(ValueError, match=r"a.yaml is not valid YAML: .*line 1"):
        Configuration([write("a.yaml", "x: [1, 2")])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"run: caf\xe9", r"is no text in UTF-8 \(byte 8 is 0xe9\)"),
        (bytes(range(256)), "is no text in UTF-8"),
        (b"? [a, b]\n: 3\n", r"line 1: \['a', 'b'\] is no key"),
        (b"x: &x {y: *x}", "is nested too deeply, or holds itself"),
        (b"x: " + b"[" * 2000 + b"]" * 2000, "is nested too deeply"),
        (b"x.y: 1\nx: {y: 2}\n", "key 'x.y' is given twice"),
        (b"x: {y: {z: 1}}\nx.y.z: 1\n", "key 'x.y.z' is given twice"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content, reason):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine\.yaml.*{reason}"):
        Configuration([tmp_path / "mine.yaml"])


def test_two_spellings_of_different_keys_are_merged(write):
    file = write("a.yaml", "x.y: 1\nx: {z: 2}\nx.w.v: 3\n")
    assert Configuration([file]).values == {"x": {"y": 1, "z": 2, "w": {"v": 3}}}


def test_a_few_lines_do_not_become_a_billion_values(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    with pytest.raises(ValueError, match=r"mine\.yaml, it holds more than 100,000 values"):
        Configuration([write("mine.yaml", "\n".join(lines))])


def test_a_link_to_itself_and_a_pipe_are_no_files(tmp_path):
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("loop.yaml", "pipe.yaml"):
        with pytest.raises(ValueError, match=f"{name}: no such configuration file"):
            Configuration([tmp_path / name])
