import re
from pathlib import Path

import gguf
import pytest
import torch

from lit_llm.checkpoint.gguf import llama_cpp, tensors
from lit_llm.checkpoint.gguf.write import export_gguf
from lit_llm.checkpoint.hf.prove import NotEqual
from lit_llm.checkpoint.manifest import CheckpointError, verify
from lit_llm.checkpoint.sharded_io import OneRank, save_distributed
from lit_llm.commands.export import run
from lit_llm.model.rope import RopeScaling
from tests.checkpoint.gguf import made


@pytest.fixture
def source(tmp_path, sentencepiece) -> Path:
    return made.save(tmp_path / "a", made.network(sentencepiece.vocab_size), sentencepiece)


@pytest.mark.parametrize(
    "flags",
    [
        {"n_kv_head": 2},
        {"qk_norm": True, "head_dim": 20, "tie_embeddings": True},
        {"qkv_bias": True, "n_kv_head": 3},
        {"rope_scaling": RopeScaling(factor=4, original_max_seq_len=32)},
    ],
    ids=["llama", "qwen3", "qwen2", "llama3"],
)
def test_llama_cpp_agrees_to_1e_4_nats_and_in_every_greedy_token(tmp_path, sentencepiece, flags):
    gpt = made.network(sentencepiece.vocab_size, **flags)
    source = made.save(tmp_path / "a", gpt, sentencepiece, chat=True)
    read, compared = export_gguf(source, tmp_path / "b")
    verify(tmp_path / "b")
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == {"model-f32.gguf", "Modelfile", "manifest.json"}
    assert read.startswith("read again: ")
    difference = float(re.search(r"at most (\S+) nats", compared)[1])
    assert difference < 1e-4
    assert compared.endswith(
        "the same at 72 of 72 steps; 300 texts and 6 conversations become the same tokens"
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "q8_0"])
def test_other_dtypes_are_written_and_compared(source, tmp_path, dtype):
    _, compared = export_gguf(source, tmp_path / "b", dtype)
    (path,) = (tmp_path / "b").glob("*.gguf")
    assert path.name == f"model-{tensors.TYPES[dtype].lower()}.gguf"
    reader = gguf.GGUFReader(path)
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.attn_q.weight"] == tensors.TYPES[dtype]
    assert types["output_norm.weight"] == "F32"
    assert "300 texts and 0 conversations become the same tokens" in compared


def test_a_byte_level_tokenizer_goes_along(tmp_path):
    tokenizer = made.byte_level(tmp_path / "tokenizer.json", "llama3-as-it-is")
    gpt = made.network(tokenizer.vocab_size)
    _, compared = export_gguf(made.save(tmp_path / "a", gpt, tokenizer), tmp_path / "b")
    assert "300 texts and 0 conversations become the same tokens" in compared


def test_a_template_goes_along_with_a_model_that_chats_and_with_no_other(
    tmp_path, sentencepiece, source, monkeypatch
):
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    gpt = made.network(sentencepiece.vocab_size)
    export_gguf(made.save(tmp_path / "c", gpt, sentencepiece, chat=True), tmp_path / "chats")
    export_gguf(source, tmp_path / "continues")
    fields = [
        gguf.GGUFReader(tmp_path / name / "model-f32.gguf").fields
        for name in ("chats", "continues")
    ]
    assert "<user>" in fields[0]["tokenizer.chat_template"].contents()
    assert "tokenizer.chat_template" not in fields[1]
    assert fields[0]["general.name"].contents() == "chats"
    modelfiles = [(tmp_path / name / "Modelfile").read_text() for name in ("chats", "continues")]
    assert "{{ range .Messages }}" in modelfiles[0]
    assert 'PARAMETER stop "</s>"\nPARAMETER stop "<end>"' in modelfiles[0]
    assert 'TEMPLATE """{{ .Prompt }}"""' in modelfiles[1]


def test_without_llama_cpp_it_is_said_that_it_was_not_run(source, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    read, not_run = export_gguf(source, tmp_path / "b")
    assert read == "read again: 21 tensors equal bit for bit, 31 keys equal"
    assert not_run == ("llama.cpp was not run: pip install xllamacpp, and export compares with it")


def test_a_name_that_llama_cpp_takes_for_another_model_is_left_out(source, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    export_gguf(source, tmp_path / "my-Phi3")
    fields = gguf.GGUFReader(tmp_path / "my-Phi3" / "model-f32.gguf").fields
    assert "general.name" not in fields


def test_a_sharded_checkpoint_is_the_same(source, tmp_path, sentencepiece, monkeypatch):
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    gpt = made.network(sentencepiece.vocab_size)
    bundle = {"model": made.gpt_to_plain(gpt.config), "chat": False, "bidirectional": False}
    checkpoint = {
        "state_dict": {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": []}],
        "lit_llm": {"bundle": bundle, "tokenizer": sentencepiece},
    }
    save_distributed(checkpoint, tmp_path / "sharded", OneRank())
    for folder, name in ((source, "x/m"), (tmp_path / "sharded", "y/m")):
        export_gguf(folder, tmp_path / name)
    x, y = (gguf.GGUFReader(tmp_path / name / "model-f32.gguf") for name in ("x/m", "y/m"))
    there = {tensor.name: tensor.data for tensor in x.tensors}
    assert all((there[tensor.name] == tensor.data).all() for tensor in y.tensors)
    assert there.keys() == {tensor.name for tensor in y.tensors}


def test_an_error_leaves_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp, "ask", lambda *_: {}["answers"])
    with pytest.raises(KeyError, match="answers"):
        export_gguf(source, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_not_what_was_meant_does_not_stay(source, tmp_path, monkeypatch):
    made_once = tensors.Planned.encoded
    monkeypatch.setattr(tensors.Planned, "encoded", lambda self: made_once(self) * 2)
    with pytest.raises(NotEqual, match=r"attn_k\.weight differs in 9,216 of 9,216 values"):
        export_gguf(source, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_is_written_over(source, tmp_path):
    with pytest.raises(CheckpointError, match="exists already"):
        export_gguf(source, tmp_path / "a")


def test_a_damaged_checkpoint_is_not_exported(source, tmp_path):
    path = source / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        export_gguf(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    source = made.save(tmp_path / "a", made.network(70), None)
    with pytest.raises(ValueError, match="holds no tokenizer, and llama"):
        export_gguf(source, tmp_path / "b")


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("qwen2", "llama.cpp takes characters as they come, the tokenizer composes (NFC)"),
        ("few-bytes", "the tokenizer has not all bytes; llama.cpp skips them in another way"),
    ],
)
def test_what_llama_cpp_does_in_another_way_is_said(tmp_path, kind, note):
    tokenizer = made.byte_level(tmp_path / "tokenizer.json", kind)
    gpt = made.network(tokenizer.vocab_size, qk_norm=True)
    told = export_gguf(made.save(tmp_path / "a", gpt, tokenizer), tmp_path / "b")
    assert f"note: {note}" in told


def test_the_command_line_takes_a_dtype(source, tmp_path, capsys):
    out = tmp_path / "b"
    to = ["--to", "gguf", "--out", str(out), "--dtype", "q8_0"]
    run("export", ["--ckpt_path", str(source), *to])
    said = capsys.readouterr().out
    assert said.startswith(f"{source} -> {out}\n")
    assert "  read again: 21 tensors equal within the rounding of q8_0" in said
    assert "bytes  model-q8_0.gguf" in said
