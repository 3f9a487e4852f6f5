"""Row 10: a step whose numbers are none changes nothing, and weights that are none are replaced."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lit_llm.data.corpus import Village
from lit_llm.data.module import TextData
from lit_llm.tokenizer import SentencePiece
from tests.torture.launching import ROOT
from tests.torture.rows import row
from tests.torture.state import assert_equal, state_of

STEPS = 6
CONFIGS = ROOT / "configs"
DDP, FSDP = ("-c", CONFIGS / "trainer/ddp.yaml"), ("-c", CONFIGS / "trainer/fsdp.yaml")
TWO = ("--trainer.accelerator=cpu", "--trainer.devices=auto", "--trainer.precision=32-true")
MUON = ("-c", CONFIGS / "optim/muon.yaml")
SILENT = ("--samples.every_n_steps=1000", "--data.micro_batch_size=1")

# What becomes what in which micro-batch; 4 micro-batches make a step.
ALONE = [
    ({"where": "gradient", "value": "nan", "micro_batch": 3}, ()),
    ({"where": "loss", "value": "inf"}, MUON),
    ({"where": "loss", "value": "nan", "micro_batch": 3}, ()),
    ({"where": "gradient", "value": "inf"}, ("--model.optimizer.init_args.fused=false",)),
    ({"where": "gradient", "value": "nan"}, ("--trainer.precision=bf16-true",)),
    ({"where": "loss", "value": "inf"}, ("--trainer.precision=bf16-mixed",)),
    ({"where": "gradient", "value": "inf", "micro_batch": 1}, MUON),
]
# On one rank of two, each of which has 2 micro-batches a step.
ONE_RANK = [
    ({"where": "gradient", "value": "nan", "rank": 1}, (*DDP, *TWO)),
    ({"where": "loss", "value": "inf", "rank": 0, "micro_batch": 1}, (*FSDP, *TWO, *MUON)),
]


@pytest.fixture
def injured(cli, launch, tiny_fit_arguments, tmp_path):
    """Fits with an injury: (exit codes, standard error, run folder, notes by step), by rank."""

    def injured(name: str, injury: dict, *arguments, ranks: int = 1):
        notes, config = tmp_path / f"notes-{name}", tmp_path / f"{name}.yaml"
        callback = {"class_path": "tests.torture.injuries.Injury"}
        callback["init_args"] = {"notes": str(notes), **injury}
        config.write_text(json.dumps({"trainer": {"callbacks": [callback]}}))
        more = ("--run", name, "-c", config, f"--trainer.max_steps={STEPS}", *SILENT, *arguments)
        arguments = tiny_fit_arguments(tmp_path, *more)
        if ranks == 1:  # nothing is killed: this process will do
            finished = cli(*arguments)
            codes = [finished.code]
        else:
            finished = launch(*arguments, ranks=ranks)
            finished.wait()
            codes = finished.codes
        files = [Path(f"{notes}-{rank}.jsonl") for rank in range(ranks)]
        return codes, finished.err, tmp_path / name, [by_step(file) for file in files]

    return injured


def by_step(file: Path) -> dict[int, dict]:
    """The last note about each step."""
    notes = map(json.loads, file.read_text().splitlines())
    return {note["step"]: note for note in notes}


def skipped(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "skipped_steps.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def rows(cache):
    """Token ids of each row of the tiny corpus, read by nothing that has to do with the run."""
    data = TextData(
        Village(documents=300, people=24),
        SentencePiece(vocab_size=320, model_type="bpe"),
        seq_len=48,
        val_fraction=0.1,
        prepare_workers=0,
        cache_dir=cache,
    )
    data.setup("fit")
    return data._train[0]


def check(step, injury, codes, err, run, notes, rows) -> None:
    """Exactly this step changed nothing, is written down with its samples, and the run ended."""
    assert codes == [0] * len(notes), err
    (line,) = skipped(run)
    assert (line["step"], line["reason"], line["action"]) == (step, injury["where"], "skipped")
    for note in (note for rank in notes for note in rank.values()):
        # Nothing at all in this step; in the others all tensors, but what bfloat16 rounds away.
        share = len(note["changed"]) / note["tensors"]
        assert share == 0 if note["step"] == step else share > 0.8
    assert all(set(rank) == set(range(1, STEPS + 1)) for rank in notes)
    assert [sample[0] for sample in line["samples"]] == list(range(4 * step - 4, 4 * step))
    named = [rows[sample[2]].tokens_T.tolist() for sample in line["samples"]]
    assert sorted(named) == sorted(tokens for rank in notes for tokens in rank[step]["tokens"])


@row(10)
def test_a_bad_step_changes_no_bit_of_weights_and_optimizer_and_names_its_samples(
    trials, draw, injured, rows
):
    for trial in trials(full=7, fast=1):
        with trial:
            injury, arguments = ALONE[trial.number]
            step = draw.randint(1, STEPS)
            name = f"alone-{trial.number}"
            end = injured(name, {**injury, "steps": [step]}, *arguments)
            check(step, injury, *end, rows)
            weights = load_file(end[2] / f"step-{STEPS:08d}/model.safetensors").values()
            assert all(bool(torch.isfinite(weight).all()) for weight in weights)


@row(10)
def test_a_bad_number_on_one_rank_is_a_bad_step_on_both(trials, draw, injured, rows):
    for trial in trials(full=2, fast=1):
        with trial:
            injury, arguments = ONE_RANK[trial.number]
            step = draw.randint(1, STEPS)
            name = f"ranks-{trial.number}"
            end = injured(name, {**injury, "steps": [step]}, *arguments, ranks=2)
            check(step, injury, *end, rows)


@row(10)
def test_so_many_bad_steps_in_a_row_end_the_run(trials, injured):
    with trials.one():
        injury = {"where": "loss", "steps": [3, 4, 5]}
        limit = "--nan_guard.max_in_a_row=3"
        saves = ("--checkpoint.every_n_steps=1", "--checkpoint.keep_last=null")
        codes, err, run, notes = injured("row", injury, limit, *saves)
        assert codes == [1]
        assert "stopped: step 5 was the 3rd in a row whose loss is nan" in err
        assert "Traceback" not in err
        assert [line["action"] for line in skipped(run)] == ["skipped", "skipped", "stopped"]
        assert [step for step, note in notes[0].items() if not note["changed"]] == [3, 4, 5]
        second, fourth = (state_of(run / f"step-0000000{n}")["weights"] for n in (2, 4))
        assert_equal(second, fourth)


@row(10)
def test_a_broken_weight_sends_the_run_back_and_leaves_no_trace_in_its_end(
    trials, draw, injured, tmp_path
):
    for trial in trials(full=2, fast=1):
        with trial:
            sharded = trial.number == 1
            ranks, arguments = (2, (*FSDP, *TWO)) if sharded else (1, ())
            # After a validation FSDP2 may still compute with the weights that it has gathered.
            options = ("--checkpoint.every_n_steps=2", "--trainer.limit_val_batches=0")
            step = draw.randint(1, STEPS)
            injury = {"where": "parameter", "steps": [step], "value": "nan"}
            injury |= {"once": str(tmp_path / f"once-{trial.number}")}
            if sharded:
                injury |= {"rank": 1, "value": "inf"}
            name = f"weight-{trial.number}"
            codes, err, run, _ = injured(name, injury, *options, *arguments, ranks=ranks)
            assert codes == [0] * ranks, err
            where = "the newest checkpoint" if step > 2 else "where it started"
            assert err.count("going back to") == err.count(f"going back to {where}") == 1
            (line,) = skipped(run)
            assert (line["step"], line["action"]) == (step, "rewound")
            assert line["reason"].startswith("parameter gpt.")
            *_, sound, _ = injured(f"sound-{trial.number}", {}, *options, *arguments, ranks=ranks)
            ends = [folder / f"step-{STEPS:08d}" for folder in (run, sound)]
            if not sharded:
                assert_equal(*map(state_of, ends))
                continue
            for shard in ("shard-00000.safetensors", "shard-00001.safetensors"):
                assert_equal(*(load_file(end / shard) for end in ends))
