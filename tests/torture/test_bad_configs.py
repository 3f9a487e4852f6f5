"""Row 17: whatever stands in a configuration, a run starts or says in three lines why not."""

import time

import pytest
import yaml

from tests.torture.launching import ROOT
from tests.torture.rows import row

RECIPE = [
    ROOT / "configs/recipes/quickstart/pretrain.yaml",
    ROOT / "tests/configs/tiny.yaml",
    ROOT / "tests/configs/tiny-text.yaml",
]
EARLY_STOPPING = "lightning.pytorch.callbacks.EarlyStopping"
BILLION = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def stopping(**arguments) -> str:
    callback = {"class_path": EARLY_STOPPING, "init_args": arguments}
    return yaml.safe_dump({"trainer": {"callbacks": [callback]}})


# What is given after a recipe that is right: flags, or the bytes of one more file; and words of the
# answer, the key or file and the remedy among them.
FLAGS = [
    ("--trainer.max_step=3", "--trainer.max_step: no such key; did you mean trainer.max_steps?"),
    ("--data.tokenizer.vocabsize=3", "did you mean data.tokenizer.vocab_size?"),
    ("--model.gpt.n_layer=2.5", "--model.gpt.n_layer: expected int, got '2.5'"),
    ("--model.gpt.n_kv_head=3", "make n_kv_head a divisor of 2"),
    ("--model.gpt.dropout=1.5", "give 0 <= dropout < 1"),
    ("--model.gpt.rope_theta=0", "rope_theta=0.0 must be a number above 0"),
    ("--model.gpt.d_model=40000000", "parameters need 51,200,165 GB, this machine has"),
    ("--model.optimizer.lr=-1", "model.optimizer: Invalid learning rate: -1.0"),
    ("--model.groups={matrix: {lrr: 0.1}}", "matrix.lrr: no such setting; did you mean lr?"),
    ("--trainer.max_steps=0", "trainer.max_steps=0: give 1 or more"),
    ("--trainer.max_steps=-5", "trainer.max_steps=-5: give 1 or more"),
    ("--trainer.min_steps=100", "more than trainer.max_steps=6: lower it"),
    ("--trainer.max_epochs=2", "there are no epochs: give max_steps"),
    ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: give a norm above 0"),
    ("--trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0: give 1 or more"),
    ("--trainer.val_check_interval=0", "trainer.val_check_interval=0: give 1 or more"),
    ("--trainer.accumulate_grad_batches=4", "is not yours to set"),
    ("--trainer.devices=0", "devices"),
    ("--trainer.strategy=dpp", "--trainer.strategy: there is no 'dpp'; did you mean ddp?"),
    ("--trainer.precision=bf61", "--trainer.precision: expected"),
    ("--trainer.accelerator=tpu", "accelerator=tpu"),
    ("--data.seq_len=0", "data.seq_len=0 must be at least 1"),
    ("--data.micro_batch_size=3", "data.global_batch_size=4 is no multiple of the 3 rows"),
    ("--data.val_fraction=2", "val_fraction=2.0 is no share"),
    ("--data.num_workers=-1", "data.num_workers=-1: give 0 or more"),
    ("--data.tokenizer.vocab_size=270", "vocab_size=270 is too small for the characters"),
    ("--data.tokenizer_from=x", "follows from model.init_from: remove it"),
    ("--checkpoint.keep_last=0", "keep_last=0 would leave nothing to resume from"),
    ("--checkpoint.monitor=val/los", "no such metric; did you mean val/loss?"),
    ("--run=../elsewhere", "run='../elsewhere' is no folder below runs_dir"),
    (f"--runs_dir={ROOT}/cli.py/runs", "cli.py is a file and no folder: give another place"),
    ("--model.init_from=nowhere", "no checkpoint nowhere"),
    ("--seed_everything=-1", "--seed_everything=-1: give a number from 0"),
    ("--ckpt_path=nowhere/step-00000003", "no checkpoint nowhere/step-00000003"),
]  # fmt: skip
FILES = [
    (b"- a\n- b\n", "must hold keys and values, got list"),
    (b"trainer:\n\tmax_steps: 3\n", "is not valid YAML"),
    (b"trainer: {max_steps: 3, max_steps: 4}\n", "line 1: key 'max_steps' is given twice"),
    (b"trainer.max_steps: 3\ntrainer: {max_steps: 4}\n", "'trainer.max_steps' is given twice"),
    (bytes(range(256)), "is no text in UTF-8"),
    (b"parts: [mine.yaml]\n", "is a part of itself"),
    (b"? [a, b]\n: 3\n", "line 1: ['a', 'b'] is no key"),
    (b"trainer: &t\n  callbacks: *t\n", "is nested too deeply, or holds itself"),
    (BILLION.encode(), "it holds more than 100,000 values"),
    (b"model: {gpt: null}\n", "model.gpt holds keys, got None"),
    (b"trainer: null\n", "trainer holds keys, got None"),
    (b"model: {objective: {class_path: torch.optim.AdamW}}\n", "AdamW is no Objective"),
    (b"data: {init_args: {corpus: lit_llm.data.corpus.Jsonl}}\n", "corpus.path is not given"),
    (b"data: {init_args: {corpus: lit_llm.data.corpus.Vilage}}\n", "did you mean lit_llm.data"),
    (stopping().encode(), "monitor is not given"),
    (stopping(monitor="val/los").encode(), "monitor=val/los: no such metric"),
    (stopping(monitor="val/loss", mode="least").encode(), "`mode` can be min, max, got least"),
]  # fmt: skip


@pytest.fixture
def refused(cli, tmp_path, cache, monkeypatch):
    """Gives a bad configuration to `fit` and checks how it is refused."""
    monkeypatch.chdir(ROOT)

    def refused(given: str | bytes, words: str) -> None:
        runs, mine = tmp_path / "runs", tmp_path / "mine.yaml"
        more = [given]
        if isinstance(given, bytes):
            mine.write_bytes(given)
            more = ["-c", mine]
        files = [part for file in RECIPE for part in ("-c", file)]
        started = time.monotonic()
        finished = cli(*("fit", *files, f"--runs_dir={runs}", f"--data.cache_dir={cache}", *more))
        check(finished.code, finished.err, words)
        assert time.monotonic() - started < 60  # 0.5 s; more where the machine is busy
        assert not runs.exists(), "it left something on the disk"

    return refused


def check(code: int, err: str, words: str) -> None:
    lines = err.splitlines()
    assert code == 2, err[-2000:]
    assert len(lines) <= 3
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert words in err


@row(17)
def test_a_bad_configuration_is_refused_in_three_lines(trials, draw, refused):
    cases = draw.sample([*FLAGS, *FILES], len(FLAGS) + len(FILES))
    for trial in trials(full=len(cases), fast=10):
        with trial:
            refused(*cases[trial.number])


@row(17)
def test_every_command_exits_with_2(trials, launch, tmp_path):
    commands = [
        (["predict", "--ckpt_path", tmp_path / "none", "--data.prompts", '["x"]'], "no checkpoint"),
        (["validate", "--ckpt_path", tmp_path / "none"], "no checkpoint"),
        (["prepare", "-c", tmp_path], "no such configuration file"),
        (["export", "--ckpt_path", "x", "--to", "gold", "--out", tmp_path / "out"], "gold"),
    ]
    for trial in trials(full=len(commands), fast=2):
        with trial:
            arguments, words = commands[trial.number]
            running = launch(*arguments)
            code = running.wait()
            check(code, running.err, words)
            assert list(tmp_path.iterdir()) == []
