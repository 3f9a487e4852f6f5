"""Our model answers lm-evaluation-harness as its own `hf` model does over the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lm_eval.api.instance import Instance

from lit_llm.checkpoint.bundle import write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hf.write import export_hf
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.evaluation.base import Options
from lit_llm.evaluation.harness import HarnessTask
from lit_llm.evaluation.harness_model import HarnessModel, settings
from lit_llm.evaluation.subject import Subject, load_subject
from lit_llm.generation import Sampling
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer import HuggingFace, SentencePiece, Tokenizer
from tests.evaluation.letters import BOS, Letters, random_gpt
from tests.tokenizer.made import byte_level

LETTERS = Letters("abcdefghijkl \n")
SPECIAL = ["<pad>", "<s>", "</s>"]
TEXTS = [
    "Anna bakes bread in the old mill by the river.",
    "Über dem Fluss steht eine Mühle; Anna bäckt dort Brot. " * 3,
    "Who lives in the mill? The miller, his cat and 17 mice. " * 7,
    "x",
]


def nothing(done, total):
    pass


def instances(kind, *arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=0, metadata=("village", 0, 1))
        for args in arguments
    ]


@pytest.fixture(scope="module")
def gpt():
    return random_gpt(LETTERS, max_seq_len=8)


@pytest.fixture
def model(gpt):
    return HarnessModel(Subject(gpt, LETTERS, chat=False, batch_size=3), nothing)


@torch.no_grad()
def slow(gpt, ids, first):
    """Log-probability of ids[first:], one token at a time."""
    return sum(
        gpt(torch.tensor([ids[:place]]))[0, -1].log_softmax(-1)[ids[place]].item()
        for place in range(first, len(ids))
    )


def test_a_continuation_follows_its_context(model, gpt):
    requests = instances("loglikelihood", ("ab", " cd"), ("ab ", "cd"), ("", "ab"), ("abc", "d"))
    found = model.loglikelihood(requests)
    ids = LETTERS.encode
    for (logprob, _), (context, rest) in zip(
        found, [("ab", " cd"), ("ab", " cd"), ("", "ab"), ("abc", "d")], strict=True
    ):
        expected = slow(gpt, [BOS, *ids(context), *ids(rest)], 1 + len(context))
        assert logprob == pytest.approx(expected, abs=1e-5)


def test_a_text_is_scored_in_windows_of_the_harness(model, gpt):
    text = "abcdefghijkl abc"
    found = model.loglikelihood_rolling(instances("loglikelihood_rolling", (text,), ("b",)))
    ids = [BOS, BOS, *LETTERS.encode(text)]  # the harness's own prefix, then that of the tokenizer
    # 8 tokens a window: 1 to 8, then 9 to 16 after token 8, then 17 with the 8 before it
    expected = slow(gpt, ids[:9], 1) + slow(gpt, ids[8:17], 1) + slow(gpt, ids[9:18], 8)
    assert found == [
        pytest.approx(expected, abs=1e-4),
        pytest.approx(slow(gpt, [BOS, BOS, *LETTERS.encode("b")], 1), abs=1e-5),
    ]


def test_answers_end_where_the_task_says(model, gpt):
    short = {"until": ["x"], "max_gen_toks": 3}
    requests = instances(
        "generate_until",
        ("ab", short),
        ("abcdefghijkl", short),
        ("ab", {**short, "max_gen_toks": 1}),
    )
    found = model.generate_until(requests)
    for text, (context, n) in zip(found, [("ab", 3), ("abcdefghijkl", 3), ("ab", 1)], strict=True):
        ids = [BOS, *LETTERS.encode(context)][-(8 - n) :]
        expected: list[int] = []
        for _ in range(n):
            with torch.no_grad():
                logits = gpt(torch.tensor([ids + expected]))[0, -1]
            logits[list(model.subject.forbidden_ids)] = -torch.inf
            id = int(logits.argmax())
            if id in model.subject.stop_ids:
                break
            expected.append(id)
        assert text == LETTERS.decode(expected)


def test_an_answer_longer_than_the_context_is_refused(model):
    with pytest.raises(ValueError, match="village wants answers of up to 256 tokens"):
        model.generate_until(instances("generate_until", ("ab", {"until": ["a"]})))


def test_settings_of_a_task_are_those_of_sampling():
    greedy = Sampling(max_new_tokens=256)
    assert settings({}) == (greedy, ())
    assert settings({"until": "a", "do_sample": False, "temperature": 0.7}) == (greedy, ("a",))
    assert settings({"until": ["a", ""], "num_beams": 1}) == (greedy, ("a",))
    assert settings({"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9})[0] == Sampling(
        max_new_tokens=5, temperature=0.5, top_p=0.9
    )
    assert settings({"do_sample": True})[0].temperature == 1.0
    with pytest.raises(ValueError, match=r"generation_kwargs\.num_beams"):
        settings({"num_beams": 4})


TASKS = {
    "words": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text[:-9]}}",
        "doc_to_target": "{{text[-9:]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "choices": {
        "output_type": "multiple_choice",
        "fewshot_split": "test",
        "num_fewshot": 1,
        "doc_to_text": "{{text[:40]}} Which one is it? ",
        "doc_to_choice": ["the mill", "the cat", "Brot"],
        "doc_to_target": "{{index}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "brier_score"}],
    },
    "alone": {  # no context at all
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "target_delimiter": "",
        "doc_to_choice": ["the mill", "x"],
        "doc_to_target": "{{index % 2}}",
        "metric_list": [{"metric": "acc"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
    },
    "answers": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["e", "\n"], "max_gen_toks": 24},
        "doc_to_text": "{{text}}",
        "doc_to_target": "mill",
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture
def folder(tmp_path):
    """Task files with their data."""
    lines = [json.dumps({"text": text, "index": i % 3}) for i, text in enumerate(TEXTS)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    for name, task in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "texts.jsonl"}}}
        task = {"task": name, "test_split": "test", **data, **task}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def tokenizer_of(kind: str, folder: Path) -> Tokenizer:
    if kind == "byte_level":
        return HuggingFace(byte_level(folder / "tokenizer.json", TEXTS, 300, SPECIAL))
    return SentencePiece(vocab_size=360).train(TEXTS)


def exported(folder: Path, kind: str) -> Subject:
    """A checkpoint, and what `export --to hf` makes of it in folder/hf."""
    tokenizer = tokenizer_of(kind, folder)
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size,
        max_seq_len=64,
        n_layer=2,
        d_model=48,
        n_head=6,
        n_kv_head=2,
    )
    gpt = GPT(config).eval()
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.normal_(std=0.15) if parameter.dim() == 2 else parameter.normal_(1, 0.3)
        for id in range(tokenizer.vocab_size):
            # Of bytes that are no UTF-8, transformers makes other signs of replacement than we do.
            if not tokenizer.token_bytes(id).isascii():
                gpt.lm_head.weight[id] = 0  # so they are not written; their scores count
    meta = {"model": gpt_to_plain(config), "bidirectional": False, "chat": False}
    meta |= {"run": "made", "step": 3, "data": {}, "config": {}}
    write_folder(
        folder / "ours", lambda inner: write_bundle(inner, meta, gpt.state_dict(), tokenizer)
    )
    export_hf(folder / "ours", folder / "hf")
    return load_subject(folder / "ours", device="cpu", precision="saved", batch_size=3)


def by_lm_eval(folder: Path) -> tuple[dict, dict]:
    """Metrics, and for each task what the model has answered, of `lm_eval --model hf`."""
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", "pretrained=hf,dtype=float32", "--batch_size", "3"]
    command += ["--tasks", ",".join(f"{name}.yaml" for name in TASKS)]
    command += ["--output_path", "out", "--log_samples"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(next(folder.glob("out/*/results_*.json")).read_text())["results"]
    answers = {}
    for name in TASKS:
        lines = next(folder.glob(f"out/*/samples_{name}_*.jsonl")).read_text().splitlines()
        samples = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
        answers[name] = [
            answer for sample in samples for each in sample["resps"] for answer in each
        ]
    return metrics, answers


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_lm_eval_finds_the_same_over_our_export(folder, monkeypatch, kind):
    subject = exported(folder, kind)
    metrics, answers = by_lm_eval(folder)
    monkeypatch.chdir(folder)
    for name in TASKS:
        task = HarnessTask(f"{name}.yaml")
        (result,) = task.run(subject, Options(), nothing)
        assert len(result.metrics) == len(TASKS[name]["metric_list"])
        for metric in result.metrics:
            assert metric.value == pytest.approx(metrics[name][f"{metric.name},none"], rel=1e-4)
            stderr = metrics[name][f"{metric.name}_stderr,none"]
            assert metric.stderr == (None if stderr == "N/A" else pytest.approx(stderr, rel=1e-3))
        ours = [
            response
            for request in task.loaded["tasks"][name].instances
            for response in request.resps
        ]
        assert len(ours) == len(answers[name])
        for mine, theirs in zip(ours, answers[name], strict=True):
            compare(mine, theirs)


def compare(mine, theirs):
    if isinstance(mine, str):
        assert mine == theirs
    elif isinstance(mine, float):
        assert mine == pytest.approx(float(theirs), abs=1e-4)
    else:  # a continuation, and whether it is greedy
        logprob, greedy = theirs
        assert mine[0] == pytest.approx(float(logprob), abs=1e-4)
        assert str(mine[1]) == str(greedy)
