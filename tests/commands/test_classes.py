import importlib
import sys
from types import ModuleType

import pytest

from lit_llm.commands import classes
from lit_llm.commands.classes import is_users_own, refuse_class, refuse_strange
from lit_llm.commands.compose import Configuration


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A file of the user's that can be imported."""
    code = "class Helper: pass\ndef build(): pass\n"
    code += "from shutil import rmtree\nfrom subprocess import Popen\n"
    (tmp_path / "their_own.py").write_text(code)
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
    with pytest.raises(ValueError, match=r"their_own\.Popen is no part of a training run"):
        refuse_class("their_own.Popen")  # it is not theirs
    with pytest.raises(ValueError, match=r"class_path=their_own\.build is no class"):
        refuse_class("their_own.build")


@pytest.mark.parametrize("place", ["site-packages", "dist-packages"])
def test_what_is_installed_for_one_user_or_by_the_system_is_not_the_users_own(
    tmp_path, monkeypatch, place
):
    folder = tmp_path / "lib/python3" / place
    (folder / "another_library").mkdir(parents=True)
    (folder / "another_library/__init__.py").write_text("class Runner: pass\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    assert not is_users_own("another_library.Runner")
    with pytest.raises(ValueError, match="no part of a training run"):
        refuse_class("another_library.Runner")
    sys.modules.pop("another_library", None)


def test_a_folder_that_python_names_for_the_user_is_not_the_users_own(
    theirs, tmp_path, monkeypatch
):
    monkeypatch.setattr(classes.site, "getusersitepackages", lambda: str(tmp_path))
    assert not is_users_own("their_own.Helper")


def test_a_function_of_the_users_may_be_named_whether_it_was_imported_or_not(theirs):
    values = {
        "model": {"gpt": {"mlp": {"class_path": "X", "init_args": {"make": "their_own.build"}}}}
    }
    assert "their_own" not in sys.modules
    refuse_strange(configuration(**values), [])
    importlib.import_module("their_own")
    refuse_strange(configuration(**values), [])
    importlib.import_module("lit_llm.checkpoint.folder")
    for name in "their_own.rmtree", "lit_llm.checkpoint.folder.remove_folder":
        with pytest.raises(ValueError, match="is no class"):
            refuse_strange(configuration(model={"objective": name}), [])


@pytest.mark.parametrize("name", ["silu", "gelu", "relu"])
def test_an_activation_is_a_part_of_a_network(name):
    values = {
        "gpt": {"mlp": {"class_path": "X", "init_args": {"fn": f"torch.nn.functional.{name}"}}}
    }
    refuse_strange(configuration(model=values), [])
    with pytest.raises(ValueError, match="is no class"):  # it would be called with what a file says
        refuse_class(f"torch.nn.functional.{name}")


FILES = ["this.txt", "code.txt", "wave.jsonl", "turtle.txt", "mailbox.jsonl", "sched.parquet"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("loaded", [False, True])
def test_a_file_is_no_function_though_python_has_a_module_of_its_name(monkeypatch, file, loaded):
    module = file.partition(".")[0]
    if loaded:
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    else:
        monkeypatch.delitem(sys.modules, module, raising=False)
    corpus = {"class_path": "lit_llm.data.corpus.Text"}
    for arguments in (
        {"path": file},
        {"path": [file]},
        {"source": file},
        {"glob": f"{module}.any"},
    ):
        corpus["init_args"] = arguments
        values = {"data": {"init_args": {"corpus": corpus}}}
        refuse_strange(configuration(**values), [])
    logger = {
        "class_path": "X",
        "init_args": {"project": f"{module}.first", "save_dir": f"{module}.2"},
    }
    refuse_strange(configuration(trainer={"logger": logger}), [])


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
