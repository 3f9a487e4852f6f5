"""The documentation says what is so: its links, paths, commands, configurations and examples."""

import contextlib
import csv
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from lit_llm.commands import export, importing, merge, parity

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
KEYS = {"model", "data", "trainer", "run", "checkpoint", "samples", "seed_everything", "parts"}
# A command that is shown with its error: arguments, what is printed
REFUSED = r"^    \$ python cli\.py (.+)\n    (error: .+)$"
RECIPE = ROOT / "configs/recipes/quickstart/pretrain.yaml"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The contents of a page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The arguments of every line `python cli.py ...`, in a block or between backticks."""
    text = re.sub(REFUSED, "", page.read_text(encoding="utf-8").replace("\\\n", " "), flags=re.M)
    # `python cli.py` within a line is code only between backticks; in a block it begins the line.
    start = r"(?:\.venv/bin/)?python cli\.py "
    inline = re.findall(rf"`{start}([^`]+)`", text)
    whole = re.findall(rf"^(?:    )?(?:\$ )?{start}(.+)$", text, re.M)
    return [shlex.split(line, comments=True) for line in [*inline, *whole]]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|mailto:|#", target):
            path = page.parent / target.partition("#")[0]
            assert path.exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_exist(page):
    for path in re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*)`", page.read_text(encoding="utf-8")):
        if path.split("/")[0] in ("lit_llm", "configs", "docs", "scripts", "tests"):
            assert (ROOT / path).exists(), f"{name(page)} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_can_be_read(page):
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


@pytest.fixture(scope="module")
def accepted(cli, tmp_path_factory):
    """Whether a command would accept its arguments; nothing is trained or looked for on disk."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "configs").symlink_to(ROOT / "configs")

    def accepted(arguments: list[str]) -> str:
        """The error, or nothing."""
        command, *rest = arguments
        if command == "report":
            return "" if len(rest) == 1 else f"report takes one folder, got {rest}"
        if command == "export":  # what it would read is not there
            export._parser().parse_args(rest)
            return ""
        if command in ("import", "merge"):
            {"import": importing, "merge": merge}[command].parser(command).parse_args(rest)
            return ""
        if command == "parity":  # it would train
            flags = parity._options(rest).flags
            return f"parity knows no {flags}" if flags else ""
        files = {"...": RECIPE, "RECIPE": RECIPE}
        rest = [str(files.get(argument, argument)) for argument in rest]
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
            # model.init_from names a run that is not there
            patch.setattr("lit_llm.commands.fit.adopt_checkpoint", lambda *_: None)
            if command in ("validate", "test"):  # its configuration would be the checkpoint's
                patch.setattr("lit_llm.commands.fit.adopt_run", lambda *_: None)
                rest = ["-c", str(RECIPE), *rest]
            for argument in rest:
                if argument.endswith("/config.yaml"):  # what a run leaves
                    (folder / argument).parent.mkdir(parents=True, exist_ok=True)
                    (folder / argument).write_text(f"{{parts: [{RECIPE}]}}")
            ends = "--help" in rest or command == "plan"  # a plan is printed, and that is all
            finished = cli(command, *rest, *([] if ends else ["--print_config"]))
        return finished.err if finished.code else ""

    return accepted


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_accepted(page, accepted):
    for arguments in commands(page):
        if arguments[0].startswith("-") or arguments[0] == "...":
            continue
        assert accepted(arguments) == "", f"{name(page)}: python cli.py {shlex.join(arguments)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_refusals_are_those_that_are_shown(page, accepted):
    for line, error in re.findall(REFUSED, page.read_text(encoding="utf-8"), re.M):
        assert accepted(shlex.split(line)) == error + "\n"


@pytest.fixture
def my_project(tmp_path, monkeypatch) -> Path:
    """A folder with the module that docs/extend.md writes."""
    source = "\n\n".join(blocks(ROOT / "docs/extend.md", "python"))
    (tmp_path / "my_project.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_project", None)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_configurations_are_accepted(page, accepted, my_project):
    for number, block in enumerate(blocks(page, "yaml")):
        if set(yaml.safe_load(block)) <= KEYS:
            # A recipe of the docs stands beside the recipes, for its parts' paths' sake.
            file = my_project / f"configs/recipes/docs/{number}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            for part in ("model", "data", "optim", "trainer"):
                with contextlib.suppress(FileExistsError):
                    (my_project / "configs" / part).symlink_to(ROOT / "configs" / part)
            file.write_text(block)
            assert accepted(["fit", "-c", str(RECIPE), "-c", str(file)]) == "", block


def test_every_part_of_your_own_trains_and_answers(tiny_fit, cli, my_project, monkeypatch):
    monkeypatch.chdir(my_project)
    with Path("poems.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([f"Rose {n} is {n * n}."] for n in range(200))])
    files = []
    for number, block in enumerate(blocks(ROOT / "docs/extend.md", "yaml")):
        files += ["-c", f"{number}.yaml"]
        Path(files[-1]).write_text(block)
    assert len(files) == 2 * 7
    finished = tiny_fit("quickstart/pretrain.yaml", Path("runs"), *files, "--run", "own")
    assert finished.code == 0, finished.err
    assert "val/loss" in Path("log.jsonl").read_text()
    bundle = (Path("runs/own/step-00000006/bundle.json")).read_text()
    assert bundle.count("my_project.GatedAttention") == 2  # of the network, and in the config
    arguments = ["--data.prompts", '["Rose"]', "--sampling.max_new_tokens", "3"]
    answered = cli("predict", "--ckpt_path", "runs/own", *arguments)
    assert answered.code == 0, answered.err
