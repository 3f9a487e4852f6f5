import csv
from itertools import cycle, pairwise, product, zip_longest
from pathlib import Path

import pytest
import yaml

from lit_llm.commands.compose import Configuration, merge

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
KEYS = {
    "run",
    "overwrite",
    "ckpt_path",
    "seed_everything",
    "model",
    "data",
    "trainer",
    "checkpoint",
    "parts",
}
FOLDER_KEY = {"model": "model", "data": "data", "trainer": "trainer", "precision": "trainer"}
FOLDERS = ("model", "optim", "data", "trainer", "overlays")


def files(folder: str = "") -> list[Path]:
    return sorted((CONFIGS / folder).rglob("*.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def command(recipe: Path) -> str:
    """The command line in a recipe's first line."""
    return recipe.read_text().splitlines()[0].removeprefix("# ")


RECIPES = [path for path in files("recipes") if " fit " in command(path)]
FRAGMENTS = [path for path in files() if "recipes" not in path.parts]
# One file of each folder at a time: they speak of different keys, and each parse takes a second.
TOGETHER = list(zip_longest(*(files(folder) for folder in FOLDERS)))
# A recipe that starts from a checkpoint has nothing to say about the hardware.
FROM_NOTHING = [
    path for path in RECIPES if "init_from" not in Configuration([path]).values.get("model", {})
]
EACH_ONCE = list(zip(files("trainer"), cycle(FROM_NOTHING), strict=False))


@pytest.mark.parametrize("path", files(), ids=name)
def test_a_file_begins_by_saying_when_to_use_it(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("path", FRAGMENTS, ids=name)
def test_a_fragment_holds_keys_of_its_own_and_no_others(path):
    values = yaml.safe_load(path.read_text())
    assert values.keys() <= KEYS - {"parts", "seed_everything"}
    if (key := FOLDER_KEY.get(path.parent.name)) is not None:
        assert values.keys() == {key}


@pytest.mark.parametrize("path", files("recipes"), ids=name)
def test_a_recipe_opens_with_the_line_that_runs_it(path):
    words = command(path).split()
    assert words[:2] == ["python", "cli.py"]
    assert words[words.index("-c") + 1] == str(path.relative_to(ROOT))
    given = (word for flag, word in pairwise(words) if flag == "-c")
    assert all((ROOT / file).is_file() for file in given)


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_warmup_takes_no_more_than_a_fifth_of_a_recipe(path):
    values = Configuration([path]).values
    warmup = values["model"]["schedule"]["init_args"]["warmup_steps"]
    assert 0 < warmup <= 0.2 * values["trainer"]["max_steps"]


@pytest.mark.parametrize("paths", TOGETHER, ids=lambda paths: "+".join(p.stem for p in paths if p))
def test_fragments_parse_over_a_recipe(cli, paths):
    given = [word for path in paths if path for word in ("-c", path)]
    finished = cli("fit", "-c", CONFIGS / "recipes/python/pretrain.yaml", *given, "--print_config")
    assert finished.code == 0, finished.err
    assert {"model", "data", "trainer"} <= yaml.safe_load(finished.out).keys()


@pytest.mark.parametrize(
    ("trainer", "recipe"),
    [
        *EACH_ONCE,
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in product(files("trainer"), FROM_NOTHING)
            if pair not in EACH_ONCE
        ),
    ],
    ids=name,
)
def test_a_recipe_parses_with_every_trainer_file(cli, trainer, recipe):
    finished = cli("fit", "-c", recipe, "-c", trainer, "--print_config")
    assert finished.code == 0, finished.err
    parsed = yaml.safe_load(finished.out)["trainer"]
    assert parsed["precision"] in ("32-true", "bf16-mixed")
    given = yaml.safe_load(trainer.read_text())["trainer"]
    if trainer.stem not in ("cpu", "gpu"):
        assert {given[key] for key in ("accelerator", "devices", "precision")} == {"auto"}
        assert "num_nodes" not in given  # the launcher knows


@pytest.mark.parametrize("later", files("trainer"), ids=name)
@pytest.mark.parametrize("earlier", files("trainer"), ids=name)
def test_the_later_of_two_trainer_files_wins_whole(earlier, later):
    first, second = (yaml.safe_load(path.read_text())["trainer"] for path in (earlier, later))
    assert merge(first, second) == second


@pytest.mark.parametrize("path", files("precision"), ids=name)
def test_a_precision_parses_over_a_trainer_file(cli, path):
    given = [
        word
        for file in (FROM_NOTHING[0], CONFIGS / "trainer/fsdp.yaml", path)
        for word in ("-c", file)
    ]
    finished = cli("fit", *given, "--print_config")
    assert finished.code == 0, finished.err
    expected = yaml.safe_load(path.read_text())["trainer"]["precision"]
    assert yaml.safe_load(finished.out)["trainer"]["precision"] == expected


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_shrunk_recipe_runs(tiny_fit, path, tmp_path, request):
    recipe, arguments = str(path.relative_to(CONFIGS / "recipes")), ["--trainer.fast_dev_run=true"]
    chat = "init_from" in Configuration([path]).values["model"]
    if chat:
        arguments.append(f"--model.init_from={request.getfixturevalue('pretrained')}")
    finished = tiny_fit(recipe, tmp_path, *arguments, chat=chat)
    assert finished.code == 0, finished.err
    assert "1/1" in finished.err  # the bar of a run of one step
    assert not list(tmp_path.rglob("step-*"))


def metrics(run: Path, column: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def overlay(name: str) -> tuple[str, Path]:
    return "-c", CONFIGS / "overlays" / f"{name}.yaml"


def test_the_debug_overlay_does_everything_once(tiny_fit, tmp_path):
    finished = tiny_fit("quickstart/pretrain.yaml", tmp_path, *overlay("debug"))
    assert finished.code == 0, finished.err
    run = tmp_path / "debug"
    assert metrics(run, "step")[-1] == 20
    assert len(metrics(run, "val/loss")) == 2
    assert {"report.html", "step-00000020"} <= {path.name for path in run.iterdir()}


@pytest.mark.parametrize("micro_batch_size", [4, 2])
def test_one_batch_is_learned_by_heart_however_it_is_cut(tiny_fit, tmp_path, micro_batch_size):
    finished = tiny_fit(
        "quickstart/pretrain.yaml",
        tmp_path,
        *overlay("overfit-one-batch"),
        *("--trainer.max_steps=90", "--trainer.log_every_n_steps=30"),
        f"--data.micro_batch_size={micro_batch_size}",
    )
    assert finished.code == 0, finished.err
    losses = metrics(tmp_path / "overfit-one-batch", "train/loss")
    # 4 rows of 48 tokens; a network of this size that sees new rows stays above 4.5 nats
    assert len(losses) == 3
    assert losses[-1] < 0.5


def test_the_profile_overlay_tells_where_the_time_goes(tiny_fit, tmp_path):
    finished = tiny_fit("quickstart/pretrain.yaml", tmp_path, *overlay("profile"))
    assert finished.code == 0, finished.err
    shares = (tmp_path / "profile/profile.txt").read_text()
    assert {"matrix products", "attention", "norms", "loss", "optimizer"} <= {
        line[:44].strip() for line in shares.splitlines()
    }
    assert (tmp_path / "profile/profile.json.gz").exists()
