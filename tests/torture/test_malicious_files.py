"""Row 15: whatever a stranger's file holds, nothing of it is executed, and the error is clean.

Every payload would make a file appear. The checkpoints and prepared data they are put into carry
manifests that agree with them: a stranger can compute SHA-256 too.
"""

import io
import json
import os
import pickle
import re
import shutil
import tempfile
import tokenize
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lit_llm.checkpoint.find import checkpoints
from lit_llm.checkpoint.manifest import seal
from lit_llm.data import sealed
from tests.torture.launching import ROOT
from tests.torture.rows import row
from tests.torture.saves import resume, save

RECIPE = ["configs/recipes/quickstart/pretrain.yaml", "tests/configs/tiny.yaml"]
RECIPE += ["tests/configs/tiny-text.yaml"]


class Call:
    """Unpickles by calling a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickles(command: str) -> list[bytes]:
    """Eight files that execute a command when a careless loader reads them."""
    call = Call(os.system, command)
    execute = Call(exec, f"import os; os.system({command!r})")
    saved = []
    for value, options in (
        (call, {}),
        ({"state_dict": {"w": torch.zeros(3)}, "loops": [execute]}, {}),
        (call, {"_use_new_zipfile_serialization": False}),
    ):
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        saved.append(buffer.getvalue())
    array, arrays = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([call], dtype=object), allow_pickle=True)
    np.savez(arrays, tokens=np.array([execute, 1], dtype=object))
    return [
        pickle.dumps(call),
        pickle.dumps({"deep": [{"inside": execute}]}, protocol=2),
        f"cposix\nsystem\n(S'{command}'\ntR.".encode(),  # written by hand, protocol 0
        *saved,
        array.getvalue(),
        arrays.getvalue(),
    ]


def nodes(command: str) -> list[dict]:
    """Eight ways to name a function or a class that executes a command."""
    popen = {"class_path": "subprocess.Popen", "init_args": {"args": command, "shell": True}}
    system = {"class_path": "os.system", "init_args": {"command": command}}
    run = {"class_path": "torch.utils.collect_env.run", "init_args": {"command": command}}
    executed = {
        "class_path": "builtins.exec",
        "dict_kwargs": {"source": f"__import__('os').system({command!r})"},
    }
    hook = {
        "class_path": "lightning.pytorch.callbacks.LambdaCallback",
        "init_args": {"setup": system},
    }
    ddp = {"class_path": "lightning.pytorch.strategies.DDPStrategy"}
    return [
        {"model": {"optimizer": system}},
        {"model": {"optimizer": run, "groups": {"matrix": {"lr": popen}}}},
        {"model": {"gpt": {"attention": popen, "mlp": system}}},
        {"model": {"objective": executed, "schedule": popen}},
        {"trainer": {"callbacks": [hook, popen], "logger": [popen]}},
        {"trainer": {"strategy": {**ddp, "init_args": {"ddp_comm_state": popen}}}},
        {"trainer": {"profiler": popen, "strategy": {**ddp, "dict_kwargs": {"x": [executed]}}}},
        {"data": {"init_args": {"corpus": popen, "tokenizer": system}}},
    ]  # fmt: skip


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A command that a payload executes, and a check that none has."""
    monkeypatch.chdir(ROOT)
    sprung = tmp_path / "sprung"

    class Trap:
        command = f"touch {sprung}"

        @staticmethod
        def check(finished, copied: bool = False) -> None:
            assert not sprung.exists(), "the payload was executed"
            if copied and finished.code == 0:
                return
            assert finished.code == 2, finished.err[-3000:]
            lines = finished.err.splitlines()
            assert len([line for line in lines if line.startswith("error: ")]) == 1
            assert len(lines) <= 4
            assert "Traceback" not in finished.err

    trap = Trap()
    os.system(trap.command)  # it does work
    sprung.unlink()
    return trap


@pytest.fixture(scope="module")
def sharded(pretrained, tmp_path_factory) -> Path:
    """The checkpoint as FSDP2 and tensor parallelism write it."""
    folder = tmp_path_factory.mktemp("sharded") / "step-00000006"
    save(resume(checkpoints(pretrained)[-1]), folder, "sharded")
    assert {"shards.json", "training.ckpt"} < {path.name for path in folder.iterdir()}
    return folder


@pytest.fixture(scope="module")
def clean_cache(cli, tmp_path_factory) -> Path:
    """Prepared data that is nobody else's."""
    cache = tmp_path_factory.mktemp("clean") / "cache"
    files = [part for file in RECIPE for part in ("-c", str(ROOT / file))]
    assert cli("prepare", *files, f"--data.cache_dir={cache}").code == 0
    return cache


def reseal(folder: Path) -> None:
    """Make the manifests of prepared data agree with its files, as a stranger would."""
    for manifest in folder.glob("*/manifest.json"):
        split = json.loads(manifest.read_text())
        for name, file in split["files"].items():
            path = manifest.parent / name
            file.update(size=path.stat().st_size, sha256=sealed.sha256(path))
        manifest.write_text(json.dumps(split, indent=1) + "\n")
    (folder / "manifest.json").unlink()
    sealed.seal(folder)
    assert sealed.damaged(folder) is None


@pytest.fixture
def opened(cli, pretrained, sharded, cache, clean_cache, tmp_path):
    """Puts the bytes of a payload where a command reads, and runs the command."""

    def checkpoint(file: str, payload: bytes, of: Path | None = None) -> Path:
        folder = tmp_path / "stranger"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(of or checkpoints(pretrained)[-1], folder)
        name = file if (folder / file).exists() else next(folder.glob(file)).name
        (folder / name).write_bytes(payload)
        (folder / "manifest.json").unlink()
        seal(folder)
        return folder

    def fit(*arguments, cache=cache, command="fit"):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        files = [part for file in RECIPE for part in ("-c", file)]
        places = [f"--runs_dir={tmp_path / 'runs'}", f"--data.cache_dir={cache}"]
        return cli(command, *files, *places, *arguments)

    def predict(file: str, payload: bytes, of: Path | None = None):
        folder = checkpoint(file, payload, of)
        return cli("predict", "--ckpt_path", folder, "--data.prompts", '["Anna"]')

    def export(file: str, payload: bytes, of: Path | None = None):
        out = tempfile.mkdtemp(dir=tmp_path) + "/out"
        arguments = ["--ckpt_path", checkpoint(file, payload, of), "--to", "checkpoint"]
        return cli("export", *arguments, "--out", out)

    def resealed(stage: str, file: str, payload: bytes):
        """One file of prepared data, under manifests that list it as it is now."""
        spoiled = tmp_path / "cache"
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(clean_cache, spoiled)
        if stage == "encode":  # it is read when the splits are put together
            shutil.rmtree(spoiled / "prepared")
        (folder,) = (spoiled / stage).iterdir()
        path = folder / file
        if path.suffix == ".bin":  # of the right length, so that it is read as numbers
            size = path.stat().st_size
            payload = (payload * (size // len(payload) + 1))[:size]
        path.write_bytes(payload)
        reseal(folder)
        return fit(cache=spoiled)

    def prepared(payload: bytes):
        spoiled = tmp_path / "cache"
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(clean_cache, spoiled)
        for path in spoiled.rglob("*"):
            if path.is_file() and path.name != ".lock":
                path.write_bytes(payload)
        return fit(cache=spoiled)

    def tokenizer(class_path: str, argument: str, payload: bytes):
        file = tmp_path / ("tokenizer.json" if argument == "path" else "tokenizer.model")
        file.write_bytes(payload)
        recipe = {"class_path": class_path, "init_args": {argument: str(file)}}
        mine = tmp_path / "mine.yaml"
        mine.write_text(yaml.safe_dump({"data": {"init_args": {"tokenizer": recipe}}}))
        return fit("-c", mine, command="prepare")

    return {
        "fit continues": lambda p: fit("--ckpt_path", checkpoint("training.ckpt", p),
                                     "--trainer.max_steps=9"),
        "fit starts from": lambda p: fit("--model.init_from", checkpoint("model.safetensors", p),
                                         "--data.tokenizer=null"),
        "validate": lambda p: cli("validate", "--ckpt_path", checkpoint("training.ckpt", p)),
        "predict reads weights": lambda p: predict("model.safetensors", p),
        "predict reads the description": lambda p: predict("bundle.json", p),
        "predict reads the tokenizer": lambda p: predict("*.model", p),
        "export": lambda p: export("training.ckpt", p),
        "fit continues from shards": lambda p: fit(
            "--ckpt_path", checkpoint("shard-*.safetensors", p, sharded), "--trainer.max_steps=9"),
        "fit continues from an index": lambda p: fit(
            "--ckpt_path", checkpoint("shards.json", p, sharded), "--trainer.max_steps=9"),
        "fit continues from shards and a state": lambda p: fit(
            "--ckpt_path", checkpoint("training.ckpt", p, sharded), "--trainer.max_steps=9"),
        "predict reads shards": lambda p: predict("shard-*.safetensors", p, sharded),
        "predict reads an index": lambda p: predict("shards.json", p, sharded),
        "export of shards": lambda p: export("shard-*.safetensors", p, sharded),
        "export of an index": lambda p: export("shards.json", p, sharded),
        "export of shards and a state": lambda p: export("training.ckpt", p, sharded),
        "prepared data": prepared,
        "starts.bin": lambda p: resealed("prepared", "train/starts.bin", p),
        "tokens.bin": lambda p: resealed("prepared", "train/00000-tokens.bin", p),
        "card.json": lambda p: resealed("prepared", "card.json", p),
        "the data's tokenizer": lambda p: resealed("prepared", "tokenizer/tokenizer.model", p),
        "encoded text": lambda p: resealed("encode", "train/00000-tokens.bin", p),
        "tokenizer.json": lambda p: tokenizer("lit_llm.tokenizer.HuggingFace", "path", p),
        "tokenizer.model": lambda p: tokenizer("lit_llm.tokenizer.SentencePiece", "model", p),
    }  # fmt: skip


@row(15)
def test_no_pickle_is_executed_by_any_loader(trials, draw, trap, opened):
    payloads = pickles(trap.command)
    cases = [(loader, payload) for loader in opened.values() for payload in payloads]
    cases = draw.sample(cases, len(cases))
    for trial in trials(full=len(cases), fast=6):
        with trial:
            loader, payload = cases[trial.number]
            try:
                # an export of a whole checkpoint copies its files, and reads none
                trap.check(loader(payload), copied=loader is opened["export"])
            except Exception as error:
                name = next(name for name, function in opened.items() if function is loader)
                error.add_note(f"{name}, payload {payloads.index(payload)}")
                raise


@row(15)
def test_no_configuration_calls_what_is_no_part_of_a_run(trials, draw, trap, cli, tmp_path):
    file, places = tmp_path / "mine.yaml", [f"--runs_dir={tmp_path / 'runs'}"]
    recipe = [part for name in RECIPE for part in ("-c", name)]
    cases = [(command, node) for command in ("fit", "plan") for node in nodes(trap.command)]
    cases = draw.sample(cases, len(cases))
    for trial in trials(full=len(cases), fast=6):
        with trial:
            command, node = cases[trial.number]
            file.write_text(yaml.safe_dump(node))
            trap.check(cli(command, *recipe, "-c", file, *(places if command == "fit" else [])))


@row(15)
def test_no_tag_of_yaml_is_a_call(trials, trap, cli, tmp_path):
    file = tmp_path / "mine.yaml"
    tags = [
        f"run: !!python/object/apply:os.system ['{trap.command}']",
        f"run: !!python/object/new:subprocess.Popen [['{trap.command}'], {{shell: true}}]",
        "run: !!python/name:os.system",
        "run: !!python/module:antigravity",
    ]
    commands = [
        ["fit", "-c", file],
        ["predict", "-c", file, "--ckpt_path", "x"],
        ["export", "-c", file],
        ["plan", "-c", file],
    ]
    cases = [(tag, command) for tag in tags for command in commands]
    for trial in trials(full=len(cases), fast=4):
        with trial:
            tag, command = cases[trial.number]
            file.write_text(tag)
            trap.check(cli(*command))


@row(15)
def test_no_checkpoint_calls_what_its_description_names(
    trials, draw, trap, cli, pretrained, tmp_path
):
    """Its configuration too: `validate` takes it from there."""
    folder = tmp_path / "stranger"
    shutil.copytree(checkpoints(pretrained)[-1], folder)
    whole = json.loads((folder / "bundle.json").read_text())
    bad = nodes(trap.command)
    predict = ["predict", "--ckpt_path", folder, "--data.prompts", '["Anna"]']
    cases = [(predict, "model", {**whole["model"], **bad[2]["model"]["gpt"]})]
    cases += [(predict, "model", {**whole["model"], "mlp": "torch.utils.collect_env.run"})]
    for node in bad[:4] + bad[7:]:
        config = {**whole["config"], **{key: {**whole["config"][key], **node[key]} for key in node}}
        cases.append((["validate", "--ckpt_path", folder], "config", config))
    name_of_tokenizer = (folder / "tokenizer_class.json").read_bytes()
    cases.append((predict, "tokenizer_class.json", {"class_path": "os.system"}))
    for trial in trials(full=len(cases), fast=3):
        with trial:
            command, key, value = cases[trial.number]
            (folder / "manifest.json").unlink()
            (folder / "tokenizer_class.json").write_bytes(name_of_tokenizer)
            (folder / "bundle.json").write_text(json.dumps({**whole, key: value}))
            if key not in whole:
                (folder / "bundle.json").write_text(json.dumps(whole))
                (folder / key).write_text(json.dumps(value))
            seal(folder)
            trap.check(cli(*command))


FORBIDDEN = (
    r"weights_only\s*=\s*(False|None)",
    r"\bimport pickle|\bfrom pickle|\bc?[pP]ickle\.loads?\b|\b(dill|joblib|marshal|shelve)\b",
    r"\byaml\.(unsafe_load|full_load|UnsafeLoader|FullLoader|Loader\b)",
    r"allow_pickle\s*=\s*True",
    r"(?<![\w.])(eval|exec)\(",
    r"shell\s*=\s*True",
    r"\bos\.(system|popen)\b",
    r"trust_remote_code\s*=\s*True",
)
ALLOWED = {
    # the remains of a class of Lightning's or ours: its __init__ signature, to read keys off it
    "lit_llm/commands/signatures.py": r"exec\(compile\(remains",
    # a tokenizer that this process has packed for its own workers; no file is read
    "lit_llm/data/encode.py": r"import pickle|pickle\.loads\(data\)",
}  # fmt: skip


def code_of(path: Path) -> list[str]:
    """Lines of a file without comments and texts, which may speak of what they avoid."""
    lines: dict[int, str] = {}
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in (tokenize.COMMENT, tokenize.STRING, tokenize.ENCODING):
                row, column = token.start
                lines[row] = lines.get(row, "").ljust(column) + token.string
    return list(lines.values())


def test_nothing_in_the_tree_could_execute_what_it_reads():
    files = [ROOT / "cli.py"]
    for folder in ("lit_llm", "scripts", "benchmarks"):
        files += sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 150
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        for line in code_of(path):
            found = [rule for rule in FORBIDDEN if re.search(rule, line)]
            if found and not (name in ALLOWED and re.search(ALLOWED[name], line)):
                raise AssertionError(f"{name}: {line.strip()} matches {found[0]}")
            if re.search(r"\btorch\.load\(", line):
                assert "weights_only=True" in line, f"{name}: {line.strip()}"
            if re.search(r"\bnp\.load\(", line):
                assert "allow_pickle=False" in line, f"{name}: {line.strip()}"
            if re.search(r"\byaml\.load\(", line):
                assert "Loader=_Loader" in line, f"{name}: {line.strip()}"
