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


MINE = "mine.yaml: "
HALF = b"trainer: {precision: bf16-mixed, strategy: {init_args: {param_dtype: bfloat16}}}\n"

# What is given after a recipe that is right: flags, or the bytes of one more file, or both; and of
# the answer the key or file that it has to name, and the remedy. Neither stands in the other.
FLAGS = [
    ("--trainer.max_step=3", "--trainer.max_step: no such key", "did you mean trainer.max_steps?"),
    ("--data.tokenizer.vocabsize=3", "--data.tokenizer.vocabsize", "data.tokenizer.vocab_size?"),
    ("--model.gpt.n_layer=2.5", "--model.gpt.n_layer", "expected int, got '2.5'"),
    ("--model.gpt.n_kv_head=3", "n_kv_head=3", "make n_kv_head a divisor of 2"),
    ("--model.gpt.dropout=1.5", "dropout=1.5", "give 0 <= dropout < 1"),
    ("--model.gpt.rope_theta=0", "rope_theta=0.0", "must be a number above 0"),
    ("--model.gpt.d_model=40000000", "model.gpt: 12,800", "see python cli.py plan for what fits"),
    ("--model.optimizer.lr=-1", "model.optimizer.lr: Invalid learning rate: -1", "give 0 or more"),
    ("--model.groups={matrix: {lrr: 0.1}}", "model.groups.matrix.lrr", "did you mean lr?"),
    ("--trainer.max_steps=0", "trainer.max_steps=0", "give 1 or more"),
    ("--trainer.max_steps=-5", "trainer.max_steps=-5", "give 1 or more"),
    ("--trainer.min_steps=100", "trainer.min_steps=100", "than trainer.max_steps=6: lower it"),
    ("--trainer.max_epochs=2", "trainer.max_epochs=2", "there are no epochs: give max_steps"),
    ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1", "give a norm above 0"),
    ("--trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0", "give 1 or more"),
    ("--trainer.val_check_interval=0", "trainer.val_check_interval=0", "give 1 or more"),
    ("--trainer.accumulate_grad_batches=4", "trainer.accumulate_grad_batches=4", "Remove it"),
    ("--trainer.devices=0", "trainer.devices=0: ", "give 1 or more, or auto"),
    ("--trainer.strategy=dpp", "--trainer.strategy: there is no 'dpp'", "did you mean ddp?"),
    ("--trainer.precision=bf61", "--trainer.precision: expected", "did you mean bf16?"),
    ("--trainer.accelerator=tpu", "trainer.accelerator=tpu: ", "give auto, cpu or gpu"),
    ("--data.seq_len=0", "data.seq_len=0", "must be at least 1"),
    ("--data.micro_batch_size=3", "data.global_batch_size=4", "change it, or data.micro_batch"),
    ("--data.val_fraction=2", "val_fraction=2.0", "give 0 <= it < 1"),
    ("--data.num_workers=-1", "data.num_workers=-1", "give 0 or more"),
    ("--data.tokenizer.vocab_size=270", "vocab_size=270", "give vocab_size="),
    ("--data.tokenizer_from=x", "tokenizer_from follows from model.init_from", "remove it"),
    ("--checkpoint.keep_last=0", "keep_last=0", "give 1 or more, or null to keep all"),
    ("--checkpoint.monitor=val/los", "checkpoint.monitor=val/los", "did you mean val/loss?"),
    ("--run=../elsewhere", "run='../elsewhere'", "give a name such as quickstart/pretrain"),
    (f"--runs_dir={ROOT}/cli.py/runs", "runs_dir: ", "give another place"),
    ("--model.init_from=nowhere", "--model.init_from: no checkpoint nowhere", "give the path of"),
    ("--seed_everything=-1", "--seed_everything=-1", "give a number from 0"),
    ("--ckpt_path=nowhere/step-3", "--ckpt_path: no checkpoint nowhere/step-3", "give the path of"),
    (["-c", "nowhere.yaml"], "nowhere.yaml: no such configuration file", "give the path of a YAML"),
    (["-c", "configs/trainer/tq.yaml"], "tq.yaml: no", "did you mean configs/trainer/tp.yaml?"),
]  # fmt: skip
FILES = [
    (b"- a\n- b\n", "mine.yaml must hold keys and values, got list", "write KEY: VALUE"),
    (b"trainer:\n\tmax_steps: 3\n", "mine.yaml is not valid YAML", "indent with spaces"),
    (b"trainer: {max_steps: 3, max_steps: 4}\n", "line 1: key 'max_steps'", "keep one of them"),
    (b"trainer.max_steps: 3\ntrainer: {max_steps: 4}\n", "'trainer.max_steps'", "keep one of them"),
    (bytes(range(256)), "mine.yaml is no text in UTF-8", "save it as UTF-8"),
    (b"parts: [mine.yaml]\n", "mine.yaml is a part of itself", "remove it from the list of parts"),
    (b"? [a, b]\n: 3\n", "mine.yaml, line 1: ['a', 'b'] is no key", "give a word"),
    (b"trainer: &t\n  callbacks: *t\n", "mine.yaml is nested too deeply", "write it out"),
    (BILLION.encode(), "mine.yaml, it holds more than 100,000", "Name its file instead"),
    (b"model: {gpt: null}\n", MINE + "model.gpt holds keys, got None", "give it keys, or leave it"),
    (b"trainer: null\n", MINE + "trainer holds keys, got None", "give it keys, or leave it out"),
    (b"model: {objective: {class_path: torch.optim.AdamW}}\n",
     MINE + "model.objective: torch.optim.AdamW is no Objective", "name a subclass of Objective"),
    (b"data: {init_args: {corpus: lit_llm.data.corpus.Jsonl}}\n",
     MINE + "data.corpus: --data.corpus.path is not given", ": give it"),
    (b"data: {init_args: {corpus: lit_llm.data.corpus.Vilage}}\n",
     MINE + "data.corpus: ", "did you mean lit_llm.data.corpus.Village?"),
    (stopping().encode(), MINE + "trainer.callbacks: --trainer.callbacks.monitor", ": give it"),
    (stopping(monitor="val/los").encode(), "monitor=val/los", "did you mean val/loss?"),
    (stopping(monitor="val/loss", mode="least").encode(),
     MINE + f"trainer.callbacks: {EARLY_STOPPING}: `mode`", "can be min, max"),
]  # fmt: skip
CONFLICTS = [
    (["-c", "configs/trainer/tp.yaml", b"model: {compile: true}\n"],
     "model.compile=true with a strategy that has tensor_parallel", "Give --model.compile false"),
    (["-c", "configs/trainer/fsdp.yaml", b"trainer: {strategy: {init_args: {replicate: 2}}}\n"],
     "tensor_parallel=1 x replicate=2", "start with another number of processes, or change"),
    (["-c", "configs/trainer/fsdp.yaml", HALF],
     "param_dtype=bfloat16 with trainer.precision=bf16-mixed", "Give --trainer.precision 32-true"),
]  # fmt: skip


@pytest.fixture
def refused(cli, tmp_path, cache, monkeypatch):
    """Gives a bad configuration to `fit` and checks how it is refused."""
    monkeypatch.chdir(ROOT)
    files = [part for file in RECIPE for part in ("-c", file)]
    runs, mine = tmp_path / "runs", tmp_path / "mine.yaml"
    base = ["fit", *files, f"--runs_dir={runs}", f"--data.cache_dir={cache}"]
    assert cli(*base, "--trainer.max_steps=0").code == 2  # imports what takes seconds to import

    def refused(given: str | bytes | list[str | bytes], key: str, remedy: str) -> None:
        arguments: list[object] = []
        for argument in given if isinstance(given, list) else [given]:
            if isinstance(argument, bytes):
                mine.write_bytes(argument)
                arguments += ["-c", mine]
            else:
                arguments.append(argument)
        started = time.monotonic()
        finished = cli(*base, *arguments)
        seconds = time.monotonic() - started
        check(finished.code, finished.err, key, remedy, seconds)
        assert not runs.exists(), "it left something on the disk"

    return refused


def check(code: int, err: str, key: str, remedy: str, seconds: float) -> None:
    lines = err.splitlines()
    assert code == 2, err[-2000:]
    assert len(lines) <= 3
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert key in err, err
    assert remedy in err.replace(key, "", 1), err
    assert seconds < 10, err


@row(17)
def test_a_bad_configuration_is_refused_in_three_lines(trials, draw, refused):
    cases = [*FLAGS, *FILES, *CONFLICTS]
    cases = draw.sample(cases, len(cases))
    for trial in trials(full=len(cases), fast=10):
        with trial:
            refused(*cases[trial.number])


@row(17)
def test_every_command_exits_with_2(trials, launch, tmp_path):
    missing = "--ckpt_path: no checkpoint"
    commands = [
        (["predict", "--ckpt_path", tmp_path / "none", "--data.prompts", '["x"]'],
         missing, "give the path of"),
        (["validate", "--ckpt_path", tmp_path / "none"], missing, "give the path of"),
        (["prepare", "-c", tmp_path], f"{tmp_path}: no such configuration file", "give the path"),
        (["export", "--ckpt_path", "x", "--to", "gold", "--out", tmp_path / "out"],
         "--to", "choose from"),
    ]  # fmt: skip
    launch("--help").wait()
    for trial in trials(full=len(commands), fast=2):
        with trial:
            arguments, key, remedy = commands[trial.number]
            started = time.monotonic()
            running = launch(*arguments)
            code = running.wait()
            check(code, running.err, key, remedy, time.monotonic() - started)
            assert list(tmp_path.iterdir()) == []
