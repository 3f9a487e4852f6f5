import importlib
import sys

import pytest

from lit_llm.commands.classes import is_users_own, refuse_class, refuse_strange
from lit_llm.commands.compose import Configuration


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A file of the user's that can be imported."""
    (tmp_path / "their_own.py").write_text("class Helper: pass\ndef build(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("their_own", None)


def configuration(**values) -> Configuration:
    made = Configuration()
    made.values = values
    return made


@pytest.mark.parametrize(
    "path",
    [
        "torch.optim.AdamW",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.strategies.DDPStrategy",
        "lit_llm.data.corpus.Village",
        "lit_llm.optim.WarmupCosine",
        "datetime.timedelta",
        "torch.distributed.fsdp.MixedPrecisionPolicy",
        "EarlyStopping",
        "nowhere.At.All",  # the parser says so, with the nearest name
    ],
)
def test_parts_of_a_run_may_be_named(path):
    refuse_class(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("os.system", "no part of a model"),
        ("subprocess.Popen", "no part of a model"),
        ("torch.utils.collect_env.run", "is no class"),
        ("torch.hub.load", "is no class"),
        ("lit_llm.checkpoint.folder.remove_folder", "is no class"),
        ("lit_llm.commands.fit.RunCLI", "is no class that a run is made of"),
        ("numpy.memmap", "no part of a training run"),
        ("torch.utils.tensorboard.SummaryWriter", "no part of a training run"),
    ],
)
def test_what_is_no_part_of_a_run_is_refused(path, reason):
    with pytest.raises(ValueError, match=reason):
        refuse_class(path)


def test_a_users_own_file_may_hold_any_class(theirs):
    assert is_users_own("their_own.Helper")
    assert (
        is_users_own("lit_llm.model.gpt.GPT") or "site-packages" in sys.modules["lit_llm"].__file__
    )
    assert not is_users_own("torch.nn.Linear")
    assert not is_users_own("os.system")
    refuse_class("their_own.Helper")
    with pytest.raises(ValueError, match=r"class_path=their_own\.build is no class"):
        refuse_class("their_own.build")


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"optimizer": {"class_path": "os.system", "init_args": {"command": "true"}}}},
        {"model": {"optimizer": "os.system"}},
        {"model": {"groups": {"matrix": {"lr": {"class_path": "subprocess.Popen"}}}}},
        {"trainer": {"callbacks": [{"class_path": "subprocess.Popen"}]}},
        {"trainer": {"logger": {"class_path": "X", "dict_kwargs": {"a": {"class_path": "os.system"}}}}},  # noqa: E501
    ],
)  # fmt: skip
def test_the_place_in_a_configuration_does_not_matter(values):
    with pytest.raises(ValueError, match=r"^--(model|trainer)\..*(os\.system|subprocess\.Popen)"):
        refuse_strange(configuration(**values), [])


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.optimizer", "os.system"],
        ["--model.optimizer=os.system"],
        ["--model.optimizer.class_path=builtins.exec"],
        ["--trainer.callbacks+={class_path: subprocess.Popen, init_args: {args: ls}}"],
        ["--trainer.logger", "[{class_path: subprocess.Popen}]"],
        ["--model.gpt.attention", "torch.utils.collect_env.run"],
    ],
)
def test_a_flag_is_looked_at_like_a_file(flags):
    with pytest.raises(ValueError, match=r"^--(model|trainer)\."):
        refuse_strange(configuration(), flags)


def test_words_that_only_look_like_an_import_path_are_left_alone():
    values = {
        "run": "os.system",
        "data": {"init_args": {"corpus": {"init_args": {"path": "code.txt"}}}},
        "trainer": {"logger": {"init_args": {"project": "test.village", "name": "cli.py"}}},
        "model": {"init_from": "checkpoints.old"},
    }
    flags = ["--data.prompts", '["os.system", "subprocess.Popen"]', "--output", "os.path"]
    refuse_strange(configuration(**values), flags)
