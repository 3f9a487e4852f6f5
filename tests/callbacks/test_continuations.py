import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_llm.callbacks.continuations import (
    continue_in_lockstep,
    continue_prompts,
    document_beginnings,
    is_spread,
)
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.generation.sampling import Sampling
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

ROOT = Path(__file__).parents[2]


def test_in_lockstep_no_token_decides_how_often_the_model_runs():
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=28, max_seq_len=32, n_layer=1, d_model=8, n_head=2))
    runs = []
    gpt.register_forward_hook(lambda *_: runs.append(1))
    arguments = gpt, [[1, 2], [3]], Sampling(max_new_tokens=6, temperature=1.0)

    (first, second) = continue_prompts(*arguments, set())
    assert len(runs) == 6
    stop = {first[1], second[1]}
    stopped = continue_prompts(*arguments, stop)
    assert len(runs) < 12
    runs.clear()
    assert continue_in_lockstep(*arguments, stop) == stopped
    assert len(runs) == 6


@pytest.mark.slow
def test_a_spread_model_writes_as_the_whole_one_even_if_ranks_would_stop_apart(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("write_spread.py"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    first, second = (
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meeting")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    )
    try:
        out, _ = first.communicate(timeout=120)
        assert (first.returncode, second.wait(timeout=60)) == (0, 0)
    finally:  # one that waits for the other would wait for half an hour
        first.kill()
        second.kill()
        second.communicate()
    result = json.loads(out.splitlines()[-1])
    assert result["texts"] == result["texts_of_the_whole_model"]
    assert {len(text) for text in result["texts"]} != {12}  # some did end early
    assert result["learned_the_same"]


def test_a_model_on_one_device_is_not_spread():
    assert not is_spread(torch.nn.Linear(2, 3))


def test_compiled_blocks_write_uncompiled():
    gpt = GPT(GPTConfig(vocab_size=28, max_seq_len=32, n_layer=1, d_model=8, n_head=2))
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph

    for block in gpt.blocks:
        block.forward = torch.compile(block.forward, backend=backend)  # type: ignore[method-assign]
    continue_prompts(gpt, [[1, 2]], Sampling(max_new_tokens=4), set())
    assert seen == []
    gpt(torch.tensor([[1, 2]]))
    assert len(seen) == 1


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
