import enum
import io
import sys
from typing import Literal

import pytest
import yaml
from jsonargparse import Namespace

from lit_llm.commands import secrets
from lit_llm.commands.compose import Configuration
from lit_llm.commands.parser import Parser, refuse_masked
from lit_llm.commands.secrets import (
    redact,
    redact_arguments,
    redact_known,
    redact_text,
    redacted_output,
    remember,
    remember_arguments,
    remember_environment,
)
from lit_llm.training.resume import compare


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", set())


RANDOM = "x7Qp-93kd_Lm20aZ"


@pytest.mark.parametrize("name", ["user_token", "auth", "cookie", "sort_key"])
def test_under_an_ambiguous_name_the_look_of_the_value_decides(name):
    assert redact({name: RANDOM}) == {name: "***"}
    assert redact({"bos_token": RANDOM, "token": "<reserved_1>"}) == {
        "bos_token": RANDOM,
        "token": "<reserved_1>",
    }


def test_a_setting_in_numbers_is_a_secret_only_if_it_is_called_one():
    tree = {"secrets_per_batch": 4, "password": 1234, "secret": 99, "secret_dim": True}
    assert redact(tree) == {**tree, "password": "***", "secret": "***"}


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
        ("sk-proj-AbC123def456GHI789jkl0", "***"),
        ("sk-or-v1-" + "0123456789abcdef" * 4, "***"),
        ("Authorization: Bearer abc.def-ghi=", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': 'Basic ***'}"),
        ("{'X': 'Bearer dG9wLXNlY3JldC1oZWFkZXI'}", "{'X': 'Bearer ***'}"),
        ("bearer dG9wLXNlY3JldC1oZWFkZXI", "bearer ***"),
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
        "The basic training plan",
        "Basic understanding",
        '["Explain basic arithmetic"]',
        "Bearer responsibilities, and 'bearer certificates'",
        "Authorization: basic training.",
        "data/sk-wikipedia-20240101-articles.jsonl",
        "data/sk-Wikipedia-20240101-Articles.jsonl",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert redact_text(text) == text
    assert redact({"note": text}) == {"note": text}


def test_a_commit_is_no_key_though_both_have_forty_digits():
    digits = "0123456789abcdef0123456789abcdef01234567"
    names = "revision git_commit sha256 rev ref checksum tag git_ref md5".split()
    tree = {**dict.fromkeys(names, digits), "anything": digits}
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


def test_the_scheme_of_a_header_is_no_part_of_its_secret():
    remember({"headers": {"Authorization": "Token open-sesame-1"}})
    assert redact_known("sent with open-sesame-1") == "sent with ***"


def test_plain_words_of_the_environment_and_of_prompts_are_not_learned():
    remember_environment({"X_AUTH": "kerberos", "DB_PASSWORD": "training", "MY_TOKEN": "disabled"})
    remember_arguments(["--data.prompts", '["Explain basic arithmetic"]'])
    remember({"samples": {"prompts": ["The basic training plan"]}})
    text = "arithmetic of training with kerberos, disabled"
    assert redact_known(text) == text
    remember_environment({"OTHER_PASSWORD": "correct horse battery", "WANDB_API_KEY": "abcdefgh"})
    remember_environment({"X_AUTH": "Zm9vYmFy1", "SOME_SECRET": "p4ssw0rds"})
    assert redact_known("correct horse battery abcdefgh Zm9vYmFy1 p4ssw0rds") == "*** *** *** ***"


class Access(enum.Enum):
    open = 1
    closed = 2


def test_a_dump_leaves_secrets_out_of_values_and_does_not_ask_whether_a_mask_is_allowed():
    parser = Parser()
    parser.add_argument("--auth", type=Literal["none", "basic"], default="none")
    parser.add_argument("--secret", type=Access)
    parser.add_argument("--pin_password", type=int)
    parser.add_argument("--doc_token", type=str)
    given = ["--auth=basic", "--secret=open", "--pin_password=4711", "--doc_token=<a>"]
    dumped = yaml.safe_load(parser.dump(parser.parse_args(given)))
    assert dumped == {"auth": "basic", "secret": "***", "pin_password": "***", "doc_token": "<a>"}
    plain = Parser()
    plain.add_argument("--run", type=str)
    assert plain.dump(plain.parse_args(["--run=ü"])) == "run: ü\n"


def test_stars_in_a_prompt_are_no_secret_and_in_a_setting_ask_for_one():
    configuration = Configuration()
    configuration.values = {"samples": {"prompts": ["***bold***", "wait ***"]}}
    refuse_masked(configuration, [])
    configuration.values = {"data": {"init_args": {"corpus": {"path": "data/***.jsonl"}}}}
    with pytest.raises(ValueError, match=r"data/\*\*\*.jsonl': a secret stood there"):
        refuse_masked(configuration, [])


def test_another_token_of_a_tokenizer_is_seen_when_a_run_is_continued():
    old, new = ({"data": {"init_args": {"doc_token": token}}} for token in ("<a>", "<b>"))
    with pytest.raises(ValueError, match=r"doc_token='<b>'"):
        compare(redact(old), redact(new))


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
