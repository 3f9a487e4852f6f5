import io
import sys

import pytest
from jsonargparse import Namespace

from lit_llm.commands import secrets
from lit_llm.commands.secrets import (
    is_secret_name,
    redact,
    redact_arguments,
    redact_known,
    redact_text,
    redacted_output,
    remember,
    remember_arguments,
    remember_environment,
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", set())


@pytest.mark.parametrize(
    "name",
    "api_key hf_token token WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID "
    "password db_password clientSecret credentials Authorization apiKey MLFLOW_TRACKING_PASSWORD "
    "hfToken".split(),
)
def test_the_name_of_a_key_says_that_it_holds_a_secret(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    "tokenizer token_bytes max_new_tokens state_key bos_token eos_token tokens_per_step key "
    "flops_per_token author monitor tokenizer_from keep_last".split(),
)
def test_a_word_that_only_resembles_one_is_no_secret(name):
    assert not is_secret_name(name)
    assert redact({name: "val/loss"}) == {name: "val/loss"}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("hf_abcdefghijklmnop1234", "***"),
        ("key sk-ABCDEF0123456789abcd!", "key ***!"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("ghp_0123456789abcdefghij", "***"),
        ("https://anna:secret@host/path", "https://***@host/path"),
        ("postgresql://anna:p%40ss@db:5432/x", "postgresql://***@db:5432/x"),
        ("https://0123456789abcdef0123@github.com/a", "https://***@github.com/a"),
        ("Authorization: Bearer abc.def-ghi=", "Authorization: Bearer ***"),
        ("https://h/x?a=1&access_token=abcdef123&b=2", "https://h/x?a=1&access_token=***&b=2"),
        ("AccountName=a;AccountKey=Zm9vYmFy;Suffix=b", "AccountName=a;AccountKey=***;Suffix=b"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.sig-nature", "***"),
    ],
)
def test_a_shape_is_enough_anywhere_in_a_text(text, left):
    assert redact_text(text) == left
    assert redact({"note": [text]}) == {"note": [left]}
    assert redact_text(left) == left


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:anna/repository.git",
        "ssh://git@github.com/anna/repository",
        "sqlite:///checkpoints/mlflow.db",
        "the token of a user is not the basis of this",
        "val/loss 1.25, step 300",
        "checkpoints/quickstart/pretrain",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert redact_text(text) == text
    assert redact({"note": text}) == {"note": text}


def test_a_commit_is_no_key_though_both_have_forty_digits():
    digits = "0123456789abcdef0123456789abcdef01234567"
    tree = {"revision": digits, "git_commit": digits, "sha256": digits, "anything": digits}
    assert redact(tree) == {**tree, "anything": "***"}


def test_a_tree_keeps_its_form_and_everything_that_is_no_secret():
    tree = {
        "logger": [{"class_path": "a.B", "init_args": {"api_key": "abc", "project": "village"}}],
        "credentials": {"class_path": "a.C", "user": "anna", "pin": 7, "none": None, "on": True},
        "password": 1234,
        "token": None,
        "max_steps": 100,
        "betas": (0.9, 0.95),
    }
    assert redact(tree) == {
        "logger": [{"class_path": "a.B", "init_args": {"api_key": "***", "project": "village"}}],
        "credentials": {"class_path": "a.C", "user": "***", "pin": 7, "none": None, "on": True},
        "password": "***",
        "token": None,
        "max_steps": 100,
        "betas": (0.9, 0.95),
    }
    space = Namespace(init_args=Namespace(api_key="abc", name="x"))
    assert redact(space) == Namespace(init_args=Namespace(api_key="***", name="x"))
    assert space.init_args.api_key == "abc"  # the object that needs it gets the real one


def test_a_command_line_is_kept_without_its_secrets():
    given = ["fit", "-c", "a.yaml", "--x.api_key", "abc", "--x.token=def", "--max_steps", "7"]
    given += ["--logger={class_path: a.B, init_args: {password: ghi}}", "--u=https://a:b@c/d"]
    assert redact_arguments(given) == [
        *("fit", "-c", "a.yaml", "--x.api_key", "***", "--x.token=***", "--max_steps", "7"),
        "--logger={'class_path': 'a.B', 'init_args': {'password': '***'}}",
        "--u=https://***@c/d",
    ]


def test_what_was_seen_once_is_left_out_of_every_later_text():
    remember({"logger": {"api_key": "open sesame/1", "url": "https://anna:swordfish@h"}})
    remember_arguments(["--a.password", "mellon-42", "--b.token=xyzzy-99"])
    remember_environment({"MY_TOKEN": "plugh-777", "HOME": "/root", "MODE": "quick-run"})
    text = "open sesame/1 open%20sesame%2F1 swordfish mellon-42 xyzzy-99 plugh-777 quick-run"
    assert redact_known(text) == "*** *** *** *** *** *** quick-run"


def test_a_short_secret_and_the_path_of_one_do_not_spoil_every_sentence(tmp_path):
    (tmp_path / "key.json").write_text("{}")
    remember_environment(
        {"A_TOKEN": "true", "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    )
    text = f"true story of {tmp_path / 'key.json'}"
    assert redact_known(text) == text


def test_what_is_printed_passes_through_and_the_streams_come_back(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with redacted_output():
        remember({"api_key": "open-sesame"})
        print("say open-sesame")
        print("hf_abcdefghijklmnop1234 is what the model wrote")  # no secret that was given
        sys.stderr.write("open-sesame!")
        assert sys.stdout.isatty() is False
        assert sys.stdout.getvalue() == out.getvalue()
    assert sys.stdout is out
    assert out.getvalue() == "say ***\nhf_abcdefghijklmnop1234 is what the model wrote\n"
    assert err.getvalue() == "***!"

    try:
        raise RuntimeError("no answer for open-sesame from https://a:b@host")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    assert "RuntimeError: no answer for *** from https://***@host\n" in err.getvalue()
