"""Row 16: a key for a logger or a hub reaches its object, and no file, log or message."""

import importlib
import sys
import textwrap
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.torture.rows import row

LOGGER = '''
    """A logger as a service has it: it takes a key, and is not careful with it."""

    import logging
    import os
    import sys

    from lightning.pytorch.loggers import Logger

    RECEIVED = {}


    class Hub(Logger):
        name, version = "hub", 0

        def __init__(self, api_key=None, password=None, uri=None, headers=None, hf_token=None,
                     env=None, fails=None):
            super().__init__()
            RECEIVED.update({name: value for name, value in locals().items() if name != "self"})
            self.told = [str(api_key), str(password), str(uri), str(headers)]
            self.told.append(os.environ.get(env or ""))
            self.uri, self.fails = uri, fails
            if fails in ("breaks", "chains", "logs"):
                self.fail()

        def fail(self):
            message = f"no answer from {self.uri} with {self.told}"
            if self.fails == "logs":  # by a handler of its own
                logging.getLogger("hub").addHandler(logging.StreamHandler())
                try:
                    raise KeyError(message)
                except KeyError:
                    logging.getLogger("hub").exception("cannot log in: %s", self.told)
            if self.fails == "chains":
                try:
                    raise ConnectionError(message)
                except ConnectionError as error:
                    error.add_note(f"the header was {self.told}")
                    raise RuntimeError(f"login failed: {self.told}") from error
            raise RuntimeError(message)

        def log_hyperparams(self, *arguments, **more): pass

        def log_metrics(self, metrics, step=None):
            if self.fails == "late":
                self.fail()
            print("sent with", *self.told)
            print("slow answer for", self.told, file=sys.stderr)
'''

KEY = "correct-horse-battery-91"  # by its key's name alone
HEX = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
URI = "https://anna:zebra-crossing-4@tracking.example/api"
PASSWORD_OF_URI = "zebra-crossing-4"


def hub(**arguments) -> dict:
    return {"trainer": {"logger": {"class_path": "careless_hub.Hub", "init_args": arguments}}}


class Planted:
    """One secret: where it is put, and what the command does with it."""

    def __init__(self, secret, *, config=None, flags=(), env=None, code=0, reaches=None):
        self.secret, self.config, self.flags = secret, config or hub(), flags
        self.env, self.code, self.reaches = env or {}, code, reaches


PLANTED = [
    Planted(KEY + "a", config=hub(api_key=KEY + "a"), reaches=("api_key", KEY + "a")),
    Planted(KEY + "b", flags=[f"--trainer.logger.api_key={KEY}b"], reaches=("api_key", KEY + "b")),
    Planted(KEY + "c", flags=["--trainer.logger.init_args.password", KEY + "c"]),
    Planted("731946820", config=hub(password=731946820), reaches=("password", 731946820)),
    Planted(PASSWORD_OF_URI, config=hub(uri=URI), reaches=("uri", URI)),
    Planted(
        TOKEN,
        flags=["--trainer.logger", str(hub(hf_token=TOKEN)["trainer"]["logger"])],
        reaches=("hf_token", TOKEN),
    ),
    Planted(
        "dG9wLXNlY3JldC1oZWFkZXI",
        config=hub(headers={"Authorization": "Bearer dG9wLXNlY3JldC1oZWFkZXI"}),
        reaches=("headers", {"Authorization": "Bearer dG9wLXNlY3JldC1oZWFkZXI"}),
    ),
    Planted(HEX, config=hub(env="WANDB_API_KEY"), env={"WANDB_API_KEY": HEX}),
    Planted(
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        config=hub(env="AWS_SECRET_ACCESS_KEY"),
        env={"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
    ),
    # an error of the parser's, which shows all that it was given
    Planted(KEY + "d", config=hub(api_key=KEY + "d", nothing=1), code=2),
    # a data set behind an address with a password
    Planted(
        "gate-keeper-77",
        flags=[
            "--data.corpus=lit_llm.data.corpus.Jsonl",
            "--data.corpus.path=https://anna:gate-keeper-77@data.example/a.jsonl",
        ],
        code=2,
    ),
]  # fmt: skip


@pytest.fixture
def careless_hub(tmp_path, monkeypatch):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "careless_hub.py").write_text(textwrap.dedent(LOGGER))
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield importlib.import_module("careless_hub")
    sys.modules.pop("careless_hub", None)


def hits(secret: str, folder: Path, *texts: str) -> list[str]:
    """Where a secret is found: names of files below a folder, or the beginning of a text."""
    spellings = {secret.encode(), quote(secret, safe="").encode()}
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [str(path) for path in files if any(word in path.read_bytes() for word in spellings)]
    return found + [
        text[:200] for text in texts if any(word in text.encode() for word in spellings)
    ]


@row(16)
def test_a_planted_secret_is_found_nowhere(
    trials, draw, cli, tiny_fit_arguments, careless_hub, tmp_path, monkeypatch, capfd
):
    planted = draw.sample(PLANTED, len(PLANTED))
    for trial in trials(full=len(planted), fast=2):
        with trial:
            this, runs = planted[trial.number], tmp_path / f"runs-{trial.number}"
            file = tmp_path / "mine.yaml"
            file.write_text(yaml.safe_dump(this.config))
            for name, value in this.env.items():
                monkeypatch.setenv(name, value)
            careless_hub.RECEIVED.clear()
            arguments = tiny_fit_arguments(
                runs, "-c", file, "--run=a", "--trainer.max_steps=2", *this.flags
            )
            capfd.readouterr()
            finished = cli(*arguments)
            assert finished.code == this.code, finished.err[-2000:]
            if this.reaches is not None:
                name, value = this.reaches
                assert careless_hub.RECEIVED[name] == value
            shown = cli(*arguments, "--print_config")
            # a log's handler may hold the stream that stood there before `cli` redirected it
            past = capfd.readouterr()
            texts = [text for part in (finished, shown, past) for text in (part.out, part.err)]
            assert hits(this.secret, runs, *texts) == []
            if this.code == 0:
                assert shown.code == 0, shown.err[-2000:]
                assert f"runs_dir: {runs}" in shown.out
                assert "class_path: careless_hub.Hub" in shown.out
                assert "sent with" in finished.out  # it was told, and masked
                assert "slow answer for" in finished.err
                assert (runs / "a/report.html").exists()
                assert list(runs.rglob("bundle.json"))


@row(16)
@pytest.mark.parametrize("fails", ["breaks", "chains", "logs", "late"])
def test_a_traceback_shows_no_secret(
    trials, launch, tiny_fit_arguments, careless_hub, tmp_path, fails
):
    config = hub(api_key=KEY + "e", uri=URI, env="MY_HUB_TOKEN", fails=fails)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    with trials.one():
        arguments = tiny_fit_arguments(tmp_path / "runs", "-c", tmp_path / "mine.yaml")
        env = {"MY_HUB_TOKEN": "swordfish-5512", "PYTHONPATH": str(tmp_path / "theirs")}
        running = launch(*arguments, env=env)
        assert running.wait() == 1
        assert "Traceback" in running.err
        assert "no answer from https://***@tracking.example/api" in running.err
        for secret in (KEY + "e", PASSWORD_OF_URI, "swordfish-5512"):
            assert hits(secret, tmp_path / "runs", running.out, running.err) == []


def test_a_run_with_a_secret_goes_on_and_its_config_asks_for_it_again(
    cli, tiny_fit_arguments, careless_hub, tmp_path
):
    file, runs = tmp_path / "mine.yaml", tmp_path / "runs"
    file.write_text(yaml.safe_dump(hub(api_key=KEY + "f")))
    arguments = tiny_fit_arguments(runs, "--run=a")
    first = cli(*arguments, "-c", file, "--trainer.max_steps=2")
    assert first.code == 0, first.err
    file.write_text(yaml.safe_dump(hub(api_key="another-one-08")))
    more = cli(*arguments, "-c", file, "--trainer.max_steps=3", "--ckpt_path=last")
    assert more.code == 0, more.err
    assert careless_hub.RECEIVED["api_key"] == "another-one-08"

    again = ["fit", "-c", runs / "a/config.yaml", "--run=b"]
    refused = cli(*again)
    assert refused.code == 2
    assert "config.yaml: trainer.logger.init_args.api_key is '***'" in refused.err
    assert "Give it again by --trainer.logger.api_key" in refused.err
    careless_hub.RECEIVED.clear()
    given = cli(*again, f"--trainer.logger.api_key={KEY}g")
    assert given.code == 0, given.err
    assert careless_hub.RECEIVED["api_key"] == KEY + "g"
