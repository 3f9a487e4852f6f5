"""transformers -> ours -> transformers, for every family and unusual shapes."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.hf.read import import_hf
from lit_llm.checkpoint.hf.write import export_hf
from lit_llm.generation.generate import generate
from lit_llm.generation.sampling import Sampling
from tests.checkpoint.hf.conftest import witness_here  # noqa: F401
from tests.checkpoint.hf.published import FAMILIES, publish, publish_llama_2_tokenizer

pytestmark = pytest.mark.interop
SHAPES = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "one KV head": {"num_key_value_heads": 1},
    "all KV heads": {"num_key_value_heads": 6},
    "head_dim 20": {"head_dim": 20},
    "odd vocabulary": {"vocab_size": 1009},
    "one layer": {"num_hidden_layers": 1},
}


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_goes_in_and_out_as_it_was(family, shape, tmp_path, found, witness_here):  # noqa: F811
    changed = SHAPES[shape]
    if "windows" in family and shape == "one layer":
        changed = {**changed, "max_window_layers": 0}
    theirs = publish(tmp_path / "theirs", family, **changed)
    if family in ("Llama-2", "TinyLlama", "Mistral"):
        publish_llama_2_tokenizer(tmp_path / "theirs", legacy=family != "TinyLlama")
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "back")
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    ours = load_model(tmp_path / "ours")[0]

    V = theirs.config.vocab_size
    tokens = torch.randint(V, (2, 120), generator=torch.Generator().manual_seed(0))
    expected = theirs(tokens).logits
    largest = float(expected.abs().max())
    for direction, logits in (("in", ours(tokens)), ("in and out", back(tokens).logits)):
        difference = float((logits - expected).abs().max())
        assert difference <= 1e-5 * largest
        found(f"{family}, {shape}", direction, f"{difference:.1e} of {largest:.3g}")

    prompts = [tokens[0, :50].tolist(), tokens[1, :9].tolist()]  # cached, and as one batch
    answers = generate(ours, prompts, Sampling(temperature=0, max_new_tokens=20))
    for prompt, answer in zip(prompts, answers, strict=True):
        for model in (theirs, back):
            output = model.generate(
                torch.tensor([prompt]),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=None,
                suppress_tokens=None,
            )
            assert answer.ids == output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_16_bits_are_no_further_from_float32_than_theirs(
    family, dtype, tmp_path, found, witness_here # noqa: F811
):  # fmt: skip
    publish(tmp_path / "theirs", family, dtype=dtype)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    line = next(line for line in told if line.startswith("in 16 bits: "))
    found(f"{family}, {str(dtype).removeprefix('torch.')}", "in", line.removeprefix("in 16 bits: "))
