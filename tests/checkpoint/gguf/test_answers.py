"""What is asked of llama.cpp by hand, of a file that was written by hand: no code of ours."""

import json
import math
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from lit_llm.checkpoint.gguf import answers

D, V = 8, 6


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A network whose blocks add nothing: logits are the normed embedding times the output."""
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_block_count(1)
    writer.add_feed_forward_length(D)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", "a", "b", *(f"<0x{byte:02X}>" for byte in range(256))]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, 1, 1, *[6] * 256])
    writer.add_add_space_prefix(False)
    embedding = np.zeros((len(tokens), D), np.float32)
    embedding[:, 0], embedding[4, 1] = 1, 1
    output = np.zeros((len(tokens), D), np.float32)
    output[3, 0], output[4, 1] = 2, 1
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(D, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(D, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((D, D), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ask(**question) -> subprocess.CompletedProcess:
    defaults = {"context": 32, "threads": 1, "texts": [], "prompts": [], "chats": []}
    asked = {**defaults, "tokens": 1, "likeliest": 2, "letter": 4, **question}
    command = [sys.executable, "-P", answers.__file__]
    return subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)


def test_log_probabilities_are_those_worked_out_by_hand(path):
    """After "b", x is (1, 1, 0...) * 2 once normed: 2 * 2 for "a" and 2 for "b", 0 for 259."""
    done = ask(model=str(path), prompts=[[1, 4]], tokens=2)
    assert done.returncode == 0, done.stderr
    (first, second) = json.loads(done.stdout)["answers"][0]
    total = math.log(math.exp(4) + math.exp(2) + 259)
    assert [id for id, _ in first] == [3, 4]
    assert [value for _, value in first] == pytest.approx([4 - total, 2 - total], abs=1e-4)
    # "a" goes on the prompt: (1, 0...) normed, of a mean square of 1/8
    logit = 2 / math.sqrt(1 / 8 + 1e-5)
    total = math.log(math.exp(logit) + 260)
    assert second[0] == [3, pytest.approx(logit - total, abs=1e-5)]


def test_texts_are_taken_literally(path):
    done = ask(model=str(path), texts=["ab<s>", "\0"])
    letters = [5 + ord(letter) for letter in "<s>"]
    assert json.loads(done.stdout)["texts"] == [[3, 4, *letters], [5]]


def test_a_file_that_is_none_ends_it_with_a_word(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUFnothing")
    done = ask(model=str(tmp_path / "a.gguf"))
    assert done.returncode != 0
    assert done.stderr
