"""The commands of the README run as they stand there; only fewer steps are taken."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEWER = ["--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.limit_val_batches=1"]


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)[1]


def commands(text: str) -> list[list[str]]:
    """Arguments of each `python cli.py` line in the code blocks of a text."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("python cli.py ")]


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a clone, with a text and questions of a user's own."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    speech = [f"ROMEO:\nWhat light through window {n} breaks?\n" for n in range(300)]
    (tmp_path / "my.txt").write_text("\n".join(speech))
    pairs = [{"prompt": f"Who are you, {n}?", "response": f"Number {n}."} for n in range(60)]
    (tmp_path / "my-questions.json").write_text(json.dumps(pairs))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_your_own_text_becomes_a_model_that_answers(cli, clone):
    lines = commands(section("Your own text"))
    assert [line[0] for line in lines] == ["fit", "predict", "fit", "predict"]
    for line in lines:
        finished = cli(*line, *(FEWER if line[0] == "fit" else ["--sampling.max_new_tokens=9"]))
        assert finished.code == 0, finished.err
    assert "ROMEO:" in cli(*lines[1]).out


def test_the_quickstart_prints_the_commands_that_the_readme_shows():
    script = (ROOT / "scripts/quickstart.py").read_text(encoding="utf-8")
    names: dict = {"__name__": "quickstart", "__file__": str(ROOT / "scripts/quickstart.py")}
    exec(compile(script, "quickstart.py", "exec"), names)
    shown = [shlex.join(line) for line in commands(section("Two commands"))]
    assert shown == list(names["COMMANDS"])


def test_without_make_the_same_commands_are_run():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    by_hand = section("Two commands")
    assert "pip install -e '.[test]'" in by_hand
    assert "-e '.[test]'" in makefile
    for target in ("quickstart", "test"):
        assert f"make {target}" in by_hand
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_transformers_says_what_predict_says(cli, finetuned, tmp_path, monkeypatch, capsys):
    text = section("Elsewhere")
    monkeypatch.chdir(tmp_path)
    run = str(finetuned)
    theirs = "checkpoints/quickstart/finetune"
    [export] = commands(text)
    assert cli(*[run if part == theirs else part for part in export]).code == 0
    capsys.readouterr()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    printed = capsys.readouterr().out.removesuffix("\n")
    predict = shlex.split(re.search(r"`python cli.py (predict .*?)`", text)[1])
    arguments = [run if part == theirs else part for part in predict]
    assert (
        cli(*arguments, "--output", tmp_path / "answer.jsonl", "--sampling.max_new_tokens=64").code
        == 0
    )
    answer = json.loads((tmp_path / "answer.jsonl").read_text())
    assert printed
    assert printed == answer["text"]
