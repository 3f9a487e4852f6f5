"""What is prepared without PyTorch, and what is left to fit's own parser."""

import subprocess
import sys
from pathlib import Path

import pytest

from lit_llm.commands.parser import read
from lit_llm.commands.plain_keys import CLASSES, plain_data
from lit_llm.commands.prepare import STARTED, plain_source
from lit_llm.data.corpus import TextFiles
from lit_llm.data.source import Source
from lit_llm.tokenizer.named import import_named

ROOT = Path(__file__).parents[2]
QUICKSTART = "configs/recipes/quickstart/pretrain.yaml"
CONTINUES = ("finetune.yaml", "quiz.yaml")  # they start from a checkpoint
PLAIN = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob("configs/recipes/*/*.yaml")
    if path.name not in CONTINUES
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def is_plain(monkeypatch):
    for name in STARTED:
        monkeypatch.delenv(name, raising=False)

    def is_plain(*flags: str) -> bool:
        return plain_source(["-c", QUICKSTART, *flags]) is not None

    return is_plain


@pytest.mark.parametrize("recipe", PLAIN)
def test_a_recipe_is_plain(recipe):
    assert plain_data(*read(["-c", recipe])) is not None


def test_a_plain_configuration_is_prepared_without_pytorch_and_lightning(tmp_path):
    (tmp_path / "text.txt").write_text("the miller grinds\n" * 300)
    code = (
        "import sys; from lit_llm.cli import main; main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    arguments = [
        *("prepare", "-c", QUICKSTART, "-c", "configs/data/text.yaml"),
        *(f"--data.corpus.path={tmp_path}/text.txt", "--data.val_split=tails"),
        *("--data.tokenizer.vocab_size=280", f"--data.cache_dir={tmp_path}/cache"),
    ]
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert "# Data card" in finished.stdout
    loaded = finished.stderr.split()
    assert not {"torch", "lightning"} & set(loaded)


def test_both_ways_prepare_the_same(tmp_path, monkeypatch, cli):
    (tmp_path / "text.txt").write_text("the miller grinds\n" * 300)
    arguments = [
        *("prepare", "-c", QUICKSTART, "-c", "configs/data/text.yaml"),
        *(f"--data.corpus.path={tmp_path}/text.txt", "--data.val_split=tails"),
        *("--data.tokenizer.vocab_size=280", "--data.prepare_workers=1"),
    ]
    cards = []
    for name in ("plain", "as_fit"):
        if name == "as_fit":
            monkeypatch.setattr("lit_llm.commands.prepare.plain_source", lambda arguments: None)
        finished = cli(*arguments, f"--data.cache_dir={tmp_path}/{name}")
        assert finished.code == 0, finished.err
        cards.append(finished.out[finished.out.index("# Data card") :])
    assert cards[0] == cards[1]
    files = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in written if path.is_file()}
        for name in ("plain", "as_fit")
        if (written := [*(tmp_path / name / "prepared").rglob("*")])
    ]
    assert len(files[0]) >= 8
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "flags",
    [
        ["--trainer.max_steps=10", "--model.gpt.n_layer", "2", "--run=other"],
        ["--data.corpus.seed=3", "--checkpoint.keep_last=null", "--samples.n_prompts=1"],
        ["--model.gpt.n_kv_head=2", "--model.optimizer.init_args.betas=[0.9, 0.99]"],
        ["--trainer.precision=auto", "--trainer.limit_val_batches=0.5", "--ckpt_path=null"],
    ],
)
def test_flags_of_everyday_are_plain(is_plain, flags):
    flags = [flag for flag in flags if "corpus.seed" not in flag]
    assert is_plain(*flags)


@pytest.mark.parametrize(
    "flags",
    [
        ["--trainer.max_step=10"],
        ["--trainer.max_steps=ten"],
        ["--trainer.max_steps=0"],
        ["--trainer.max_steps"],
        ["--trainer.callbacks=lightning.pytorch.callbacks.DeviceStatsMonitor"],
        ["--trainer.strategy.class_path=lightning.pytorch.strategies.DDPStrategy"],
        ["--trainer.precision=3"],
        ["--model.gpt.n_head=3"],
        ["--model.gpt.d_model=132", "--model.gpt.n_head=4"],
        ["--model.gpt.n_kv_head=3"],
        ["--model.gpt.vocab_size=300"],
        ["--model.gpt.dropout=1.0"],
        ["--model.gpt=null"],
        ["--model.init_from=checkpoints/none"],
        ["--model.optimizer.init_args.lr=-1"],
        ["--model.optimizer.init_args.rate=1"],
        ["--model.schedule.init_args.floor=2"],
        ["--model.groups.embedding.lr=-1"],
        ["--checkpoint.mode=least"],
        ["--checkpoint.every_n_steps=0"],
        ["--checkpoint=true"],
        ["--data.corpus.path=x"],
        ["--data.val_fraction=2"],
        ["--data.seq_len=0"],
        ["--data.sequence=3"],
        ["--data=my_project.Data"],
        ["--data.tokenizer.path=x"],
        ["--data.tokenizer=collections.Counter"],
        ["--data.corpus.seed=null"],
        ["--data.cache_dir=[1]"],
        ["--data.cache_dir=null"],
        ["--data.tokenizer_from=checkpoints/none"],
        ["--data.init_args.tokenizer_from=null"],
        ["--model.gpt.rope_theta=.inf"],
        ["--model.gpt.dropout=.nan"],
        ["--model.groups.embedding.lr=.inf"],
        ["--model.groups=false"],
        ["--model.optimizer=null"],
        ["--overwrite=null"],
        ["--run=null"],
        ["--seed_everything=-1"],
        ["--overwrite=perhaps"],
        ["--colour=red"],
        ["--help"],
        ["--print_config"],
        ["--print_config=skip_default"],
        ["--data.corpus.help=lit_llm.data.corpus.TextFiles"],
        ["fit"],
    ],
    ids=" ".join,
)
def test_what_is_not_plainly_right_is_left_to_fits_parser(is_plain, flags):
    assert not is_plain(*flags)


@pytest.mark.parametrize(
    "text",
    [
        "data: {corpus: {seed: null}}",  # each time another village
        "data: {cache_dir: [1]}",
        "data: {tokenizer_from: checkpoints/none}",
        "overwrite: null",
        "model: {groups: []}",
    ],
)
def test_nor_is_what_files_say_so(is_plain, tmp_path, text):
    (tmp_path / "more.yaml").write_text(text)
    assert not is_plain("-c", str(tmp_path / "more.yaml"))


def test_a_null_that_is_the_default_is_plain(is_plain):
    assert is_plain("--data.micro_batch_size=null", "--model.schedule=null", "--model.groups=null")


def test_among_other_processes_fits_parser_decides(is_plain, monkeypatch):
    assert is_plain()
    for name in ("WORLD_SIZE", "SLURM_PROCID"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "2")
            assert not is_plain()


def test_what_is_wrong_is_said_in_the_words_of_fit(cli):
    finished = cli("prepare", "-c", QUICKSTART, "--trainer.max_step=10")
    assert finished.code == 2
    assert finished.err.endswith(
        "error: --trainer.max_step: no such key; did you mean trainer.max_steps?\n"
    )


def test_flags_win_over_files_and_data_gets_all_its_settings():
    flags = ["--data.corpus=lit_llm.data.corpus.TextFiles", "--data.corpus.path=texts"]
    flags += ["--data.tokenizer.vocab_size", "300", "--data.init_args.split_seed=7"]
    data = plain_data(*read(["-c", QUICKSTART, *flags]))
    assert isinstance(data["corpus"], TextFiles)
    assert data["corpus"].path == Path("texts")
    assert data["tokenizer"].recipe()["vocab_size"] == 300
    assert data["split_seed"] == 7
    assert Source(**data).preparation.split_seed == 7


def test_known_classes_are_there():
    for paths in CLASSES.values():
        assert all(isinstance(import_named(path), type) for path in paths)


def test_a_package_that_is_missing_is_named_as_by_fit(cli, monkeypatch):
    def prepared(self, *, progress):
        raise ModuleNotFoundError("No module named 'x': pip install x")

    monkeypatch.setattr(Source, "prepared", prepared)
    finished = cli("prepare", "-c", QUICKSTART)
    assert finished.code == 2
    assert "a part needs a package that is not installed" in finished.err
