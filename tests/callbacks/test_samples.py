import json

import pytest
import torch

from lit_llm.callbacks import Checkpoint, Samples
from lit_llm.callbacks import samples as module
from lit_llm.callbacks.samples import continue_prompts, document_beginnings, read_samples
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.generation.sampling import Sampling

SHORT = Sampling(max_new_tokens=4, temperature=1.0)


def read(tmp_path):
    return read_samples(tmp_path / "run" / "samples.jsonl")


def test_every_validation_continues_the_same_prompts(fit, tmp_path):
    fit([Samples(n_prompts=2, prompt_tokens=5, sampling=SHORT)])
    rows = read(tmp_path)
    assert [row["step"] for row in rows] == [3, 3, 6, 6]
    assert rows[0]["prompt"] == rows[2]["prompt"] != rows[1]["prompt"]
    assert [len(row["prompt"]) for row in rows] == [4] * 4  # bos is no text


def test_given_prompts_are_continued_every_n_steps(fit, tmp_path):
    fit([Samples(every_n_steps=2, prompts=["abc"], sampling=SHORT)], limit_val_batches=0)
    assert [(row["step"], row["prompt"]) for row in read(tmp_path)] == [
        (2, "abc"),
        (4, "abc"),
        (6, "abc"),
    ]


def test_a_run_learns_the_same_with_and_without_samples(fit, tiny_lm, monkeypatch):
    def noisy(*args):
        torch.rand(7)  # as a user's attention may
        return continue_prompts(*args)

    monkeypatch.setattr(module, "continue_prompts", noisy)

    class FromGlobalNoise(tiny_lm):  # its dropout goes on with the global random numbers
        def on_train_batch_end(self, outputs, batch, batch_idx):
            assert all(module.training for module in self.modules())

    samples = Samples(every_n_steps=1, prompts=["ab"], sampling=SHORT)
    torch.manual_seed(9)
    _, plain = fit([], model=FromGlobalNoise(dropout=0.5))
    _, sampled = fit([samples], model=FromGlobalNoise(dropout=0.5))
    for ours, theirs in zip(sampled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_that_sees_both_directions_is_left_alone(fit, tiny_lm, tmp_path, caplog):
    model = tiny_lm()
    model.objective.bidirectional = True
    caplog.set_level("INFO")
    fit([Samples(sampling=SHORT)], model=model)
    assert read(tmp_path) == []
    assert "no samples: Objective sees what comes after a token" in caplog.text


def test_a_resumed_run_drops_the_samples_that_it_makes_again(fit, tmp_path):
    fit([Samples(n_prompts=1, sampling=SHORT), Checkpoint()], max_steps=9)
    at_6 = str(tmp_path / "run" / "step-00000006")
    fit([Samples(n_prompts=1, sampling=SHORT)], max_steps=9, ckpt_path=at_6)
    assert [row["step"] for row in read(tmp_path)] == [3, 6, 9]


def test_a_new_run_in_an_old_folder_moves_the_old_samples_aside(fit, tmp_path):
    for _ in range(2):
        fit([Samples(n_prompts=1, sampling=SHORT)], max_steps=3)
    assert [row["step"] for row in read(tmp_path)] == [3]
    assert (tmp_path / "run" / "samples-1.jsonl").exists()


def test_fast_dev_run_writes_nothing(fit, tmp_path):
    fit([Samples(n_prompts=1, sampling=SHORT)], fast_dev_run=True, val_check_interval=1)
    assert read(tmp_path) == []


def test_a_line_that_was_cut_off_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"step": 1, "text": "a\u2028b"}, ensure_ascii=False) + '\n{"step": ')
    assert read_samples(path) == [{"step": 1, "text": "a\u2028b"}]


def documents(*rows: list[tuple[int, int, int]]) -> Batch:
    """Rows of (token, label, document)."""
    tokens, labels, owners = (
        torch.tensor(field) for field in zip(*map(zip_row, rows), strict=True)
    )
    return Batch(tokens, labels, owners, torch.zeros_like(tokens))


def zip_row(row):
    return tuple(zip(*row, strict=True))


def test_prompts_are_beginnings_of_documents_from_different_rows():
    batch = documents(
        [(10, 11, 0), (11, 12, 0), (12, 13, 0), (20, 21, 1), (21, 22, 1), (22, 23, 1)],
        [(30, 31, 0), (31, IGNORE, 0), (40, 41, 1), (41, 42, 1), (42, 43, 1), (0, IGNORE, -1)],
    )
    # [30, 31] is as long as a prompt: nothing of it would be left to continue.
    assert document_beginnings(batch, 9, 2) == [[10, 11], [40, 41], [20, 21]]
    assert document_beginnings(batch, 1, 2) == [[10, 11]]


def test_the_prompt_of_a_conversation_ends_where_its_answer_begins():
    conversation = [(5, IGNORE, 0), (6, IGNORE, 0), (7, 8, 0), (8, 9, 0), (9, IGNORE, 0)]
    assert document_beginnings(documents(conversation), 3, 2) == [[5, 6, 7]]


def test_a_distance_of_zero_is_refused():
    with pytest.raises(ValueError, match="every_n_steps=0 is no distance"):
        Samples(every_n_steps=0)
