"""Export: transformers loads the folder with no code of ours and computes the same."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from lit_llm.checkpoint.bundle import load_model, write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hf import prove
from lit_llm.checkpoint.hf.prove import NotEqual
from lit_llm.checkpoint.hf.read import import_hf
from lit_llm.checkpoint.hf.write import export_hf
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.generation.generate import generate
from lit_llm.generation.sampling import Sampling
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer import HuggingFace, Message, SentencePiece, Tokenizer
from tests.checkpoint.hf.published import FAMILIES, publish, publish_tokenizer

TEXTS = ["Anna bakes the bread, and 12 people eat it.", "def f(x):\n    return x + 1\n"] * 20


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return SentencePiece(vocab_size=301).train(TEXTS)


def checkpoint(folder: Path, tokenizer: Tokenizer | None, *, chat: bool = True, **changed) -> GPT:
    """A checkpoint of random weights, in the folder of a run."""
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "d_model": 40, "n_head": 4, "n_kv_head": 2, "max_seq_len": 200}
    vocab_size = tokenizer.vocab_size if tokenizer else 301
    config = GPTConfig(**{"vocab_size": vocab_size, **sizes, **changed})
    gpt = GPT(config).eval()
    for parameter in gpt.parameters():
        parameter.data.normal_(std=0.15) if parameter.dim() == 2 else parameter.data.normal_(1, 0.3)
    meta = {
        "model": gpt_to_plain(config),
        "bidirectional": False,
        "chat": chat,
        "step": 7,
        "config": {},
        "data": {"parts": {"corpus": {"corpus": "my.Letters"}}},
    }
    write_folder(folder, lambda f: write_bundle(f, meta, gpt.state_dict(), tokenizer))
    return gpt


@pytest.mark.parametrize("qk_norm", [False, True], ids=["llama", "qwen3"])
def test_the_folder_generates_what_the_checkpoint_does(qk_norm, pieces, tmp_path, witness_here):
    gpt = checkpoint(tmp_path / "run/step", pieces, qk_norm=qk_norm, tie_embeddings=qk_norm)
    told = export_hf(tmp_path / "run/step", tmp_path / "out")
    assert "1,100 texts and 6 chats have the same tokens" in told[-1]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    kind = "Qwen3ForCausalLM" if qk_norm else "LlamaForCausalLM"
    assert type(model).__name__ == kind
    assert model.config.vocab_size == 301  # without the rows that pad the table to 320

    special = pieces.special
    stops = {special["eos"], special["end"]}
    row = generate(
        gpt,
        [pieces.document(pieces.encode("Anna bakes"))],
        Sampling(temperature=0, max_new_tokens=30),
        stop_ids=stops,
        forbidden_ids=set(special.values()) - stops,
        token_bytes=pieces.token_bytes,
    )[0]
    inputs = tokenizer("Anna bakes", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0]
    generated = output[inputs["input_ids"].shape[1] :].tolist()
    assert generated == row.ids
    assert set(model.generation_config.eos_token_id) == stops


def test_a_chat_is_written_by_its_template_and_answers_are_marked(pieces, tmp_path, witness_here):
    checkpoint(tmp_path / "run/step", pieces)
    export_hf(tmp_path / "run/step", tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [
        {"role": "system", "content": "It's \\brief\n"},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Anna."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": " bread"},
    ]
    theirs = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, learned = pieces.chat_template.encode(pieces, [Message(**m) for m in messages])
    assert theirs["input_ids"] == ids
    assert [bool(mark) for mark in theirs["assistant_masks"]] == learned


def test_a_model_of_texts_has_no_chat_template(pieces, tmp_path, witness_here):
    checkpoint(tmp_path / "run/step", pieces, chat=False)
    export_hf(tmp_path / "run/step", tmp_path / "out")
    assert not (tmp_path / "out/chat_template.jinja").exists()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_precision_is_chosen(dtype, pieces, tmp_path, witness_here):
    gpt = checkpoint(tmp_path / "run/step", pieces)
    told = export_hf(tmp_path / "run/step", tmp_path / "out", dtype)
    weights = load_file(tmp_path / "out/model.safetensors")
    kind = getattr(torch, dtype)
    assert torch.equal(weights["model.norm.weight"], gpt.norm.weight.to(kind))
    assert {tensor.dtype for tensor in weights.values()} == {kind}
    assert told[1].startswith("in 16 bits")
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == kind


def test_large_weights_are_cut_into_shards(pieces, tmp_path, witness_here):
    gpt = checkpoint(tmp_path / "run/step", pieces)
    export_hf(tmp_path / "run/step", tmp_path / "out", shard_bytes=60_000)
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for file in files for tensor in load_file(tmp_path / "out" / file).values()
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, gpt.lm_head.weight[:301])


@pytest.mark.parametrize("family", ["Llama-3", "Mistral", "Qwen2, windows", "SmolLM2"])
def test_what_was_imported_is_exported_bit_by_bit(family, tmp_path, witness_here):
    publish(tmp_path / "theirs", family)
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "back")
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert type(model).__name__ == f"{FAMILIES[family][0]}ForCausalLM"
    texts = [(tmp_path / n / "chat_template.jinja").read_text() for n in ("theirs", "back")]
    assert texts[0] == texts[1]


def test_a_byte_level_tokenizer_is_exported_with_the_roles_that_were_added(tmp_path, witness_here):
    publish_tokenizer(tmp_path / "tokenizer")
    tokenizer = HuggingFace(str(tmp_path / "tokenizer/tokenizer.json"), add_missing=True)
    checkpoint(tmp_path / "run/step", tokenizer)
    told = export_hf(tmp_path / "run/step", tmp_path / "out")
    assert "6 chats have the same tokens" in told[-1]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("<|user|>", split_special_tokens=True)["input_ids"][1:] == tokenizer.encode(
        "<|user|>"
    )


def test_the_card_says_where_the_model_comes_from(pieces, tmp_path, witness_here):
    checkpoint(tmp_path / "run/step", pieces)
    (tmp_path / "run/metrics.csv").write_text("step,val/loss\n5,2.5\n7,1.25\n7,\n")
    card = {"corpus": {"train": {"documents": 1234, "bytes": 5, "tokens": 6}}}
    (tmp_path / "run/data_card.json").write_text(json.dumps(card))
    export_hf(tmp_path / "run/step", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    for said in ("| val/loss | 1.25 |", "1,234", "run/step: step 7, on Letters", "random weights"):
        assert said in text


def test_the_card_s_own_example_runs(pieces, tmp_path, witness_here, monkeypatch, capsys):
    checkpoint(tmp_path / "run/step", pieces)
    export_hf(tmp_path / "run/step", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code.replace("max_new_tokens=64", "max_new_tokens=2"), {})
    assert capsys.readouterr().out


def test_another_computation_is_found_and_nothing_is_left(
    pieces, tmp_path, witness_here, monkeypatch
):
    checkpoint(tmp_path / "run/step", pieces)
    project = GPT.project
    monkeypatch.setattr(GPT, "project", lambda self, hidden: project(self, hidden) * 1.001)
    with pytest.raises(NotEqual, match="logits differ"):
        export_hf(tmp_path / "run/step", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_16_bits_that_are_worse_than_theirs_are_found(pieces, tmp_path, witness_here, monkeypatch):
    checkpoint(tmp_path / "run/step", pieces)
    ours = prove._our_logits

    def noisy(load, rows):
        wide, narrow = ours(load, rows)
        return wide, [logits + 0.1 * torch.randn(logits.shape) for logits in narrow]

    monkeypatch.setattr(prove, "_our_logits", noisy)
    with pytest.raises(NotEqual, match="in 16 bits our logits are"):
        export_hf(tmp_path / "run/step", tmp_path / "out", "bfloat16")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"norm.weight": torch.nan}, "norm.weight holds NaN or infinity"),
        ({"norm.weight": 1e6}, "norm.weight reaches 1e.06, more than float16 can hold"),
    ],
)
def test_weights_that_cannot_be_written_are_named(changed, said, pieces, tmp_path, witness_here):
    gpt = checkpoint(tmp_path / "run/step", pieces)
    bundle = load_model(tmp_path / "run/step")[1]
    for name, value in changed.items():
        gpt.state_dict()[name].fill_(value)
    write_folder(
        tmp_path / "run/bad", lambda f: write_bundle(f, bundle.meta, gpt.state_dict(), pieces)
    )
    with pytest.raises(ValueError, match=said):
        export_hf(tmp_path / "run/bad", tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()


def test_what_transformers_does_not_have_is_refused(pieces, tmp_path, witness_here):
    checkpoint(tmp_path / "run/none", None)
    with pytest.raises(ValueError, match="holds no tokenizer"):
        export_hf(tmp_path / "run/none", tmp_path / "out")
    unigram = SentencePiece(vocab_size=296, model_type="unigram").train(TEXTS)
    checkpoint(tmp_path / "run/unigram", unigram)
    with pytest.raises(ValueError, match="model_type=unigram of this SentencePiece"):
        export_hf(tmp_path / "run/unigram", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_was_proven(pieces, tmp_path, cli, witness_here):
    checkpoint(tmp_path / "run/step", pieces)
    done = cli("export", "--ckpt_path", tmp_path / "run", "--to", "hf", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "equal to transformers" in done.out
    assert "bytes  model.safetensors" in done.out
    done = cli(
        *("export", "--ckpt_path", tmp_path / "run", "--to", "hf", "--dtype", "int4"),
        *("--out", tmp_path / "two"),
    )
    assert done.code == 2
    assert "writes no --dtype int4: choose one of float32, bfloat16, float16" in done.err
