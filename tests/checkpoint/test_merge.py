import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_llm.checkpoint import merge as merging
from lit_llm.checkpoint.base import describe_base
from lit_llm.checkpoint.bundle import load_bundle, load_model, read_meta
from lit_llm.checkpoint.consolidate import consolidate
from lit_llm.checkpoint.manifest import CheckpointError, verify
from lit_llm.checkpoint.merge import load_apart, merge_adapters
from lit_llm.checkpoint.reader import Reader

TOKENS_BT = torch.tensor([[1, 10, 4, 0, 7, 3, 3], [2, 2, 9, 5, 8, 1, 6]])


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@torch.no_grad()
def test_the_network_comes_back_with_its_adapters_apart_bit_for_bit(adapted):
    assert torch.equal(load_apart(adapted.folder)(TOKENS_BT), adapted.gpt(TOKENS_BT))


@torch.no_grad()
def test_a_checkpoint_of_adapters_loads_as_the_whole_merged_network(adapted):
    expected, base = adapted.gpt(TOKENS_BT), load_model(adapted.base)[0](TOKENS_BT)
    assert not close(base, expected)  # else the rest would show nothing
    gpt, bundle = load_model(adapted.folder)
    assert close(gpt(TOKENS_BT), expected)
    assert not any("lora" in name for name in bundle.state)
    assert bundle.meta["step"] == 4


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_checkpoint_is_one_like_any_other(save_lora, tmp_path, tied):
    adapted = save_lora(tmp_path, tie_embeddings=tied)
    target = tmp_path / "merged"
    (line,) = consolidate(adapted.folder, target)
    assert line.startswith("equal to the adapters apart: logits differ by at most ")
    shutil.rmtree(adapted.folder)
    shutil.rmtree(adapted.base)
    verify(target)
    assert close(load_model(target)[0](TOKENS_BT), adapted.gpt(TOKENS_BT))
    meta = read_meta(target)
    assert meta.keys() == {"model", "step", "config", "format"}
    assert meta["format"] == 1
    assert meta["config"]["model"] == {"lora": None, "init_from": "base"}
    assert {path.name for path in target.iterdir()} == {
        "bundle.json",
        "manifest.json",
        "model.safetensors",
    }
    assert ("lm_head.weight" in load_file(target / "model.safetensors")) != tied


@torch.no_grad()
def test_each_weight_is_read_merged_or_apart(adapted):
    state = load_bundle(adapted.folder).state
    reader = Reader(adapted.folder)
    assert {f"model.{name}" for name in state} == set(reader.names)
    assert reader.skeleton().keys() == state.keys()
    for name, expected in state.items():
        assert torch.equal(reader.read(f"model.{name}"), expected)
        assert reader.describe(f"model.{name}").dtype == torch.float32

    apart = Reader(adapted.folder, apart=True)
    own = {n: w for n, w in adapted.gpt.state_dict().items() if "lora" in n}
    assert apart.skeleton().keys() == own.keys()
    assert all(torch.equal(apart.read(f"model.{name}"), own[name]) for name in own)
    assert torch.equal(apart.read("optimizer.0.exp_avg"), torch.ones(3, 12))


@torch.no_grad()
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("tied", "whole"),
    [(True, ("embed",)), (True, ("embed", "lm_head")), (False, ("lm_head", "norm"))],
)
def test_parts_that_learned_as_a_whole_are_held_with_the_adapters(
    save_lora, tmp_path, tied, whole, sharded
):
    adapted = save_lora(tmp_path, sharded=sharded, whole=whole, tie_embeddings=tied)
    expected = adapted.gpt(TOKENS_BT)
    assert torch.equal(load_apart(adapted.folder)(TOKENS_BT), expected)
    gpt, bundle = load_model(adapted.folder)
    assert close(gpt(TOKENS_BT), expected)
    assert (gpt.lm_head.weight is gpt.embed.weight) == tied
    apart = Reader(adapted.folder, apart=True).skeleton()
    assert {name for name in apart if "lora" not in name} == {f"{part}.weight" for part in whole}
    reader = Reader(adapted.folder)
    for name, weight in bundle.state.items():
        assert torch.equal(reader.read(f"model.{name}"), weight)
    consolidate(adapted.folder, tmp_path / "merged")
    assert close(load_model(tmp_path / "merged")[0](TOKENS_BT), expected)


@torch.no_grad()
def test_adapters_over_adapters_add_up(save_lora, tmp_path):
    first = save_lora(tmp_path)
    meta = read_meta(first.folder)
    over = tmp_path / "second/step-00000001"
    meta["base"] = describe_base(first.folder)
    state = {n: w for n, w in first.gpt.state_dict().items() if "lora" in n}
    merging.write_folder(over, lambda inner: merging.write_bundle(inner, meta, state, None))
    name = "blocks.1.attn.q_proj.weight"
    states = [load_bundle(folder).state[name] for folder in (first.base, first.folder, over)]
    torch.testing.assert_close(states[2] - states[1], states[1] - states[0])


def test_what_would_compute_something_else_gets_no_name(save_lora, tmp_path, monkeypatch):
    adapted = save_lora(tmp_path)
    write = merging.write_bundle

    def falsify(folder, meta, state, tokenizer):
        entries = write(folder, meta, state, tokenizer)
        tensors = load_file(folder / "model.safetensors")
        tensors["blocks.1.attn.q_proj.weight"] *= 1.001
        save_file(tensors, folder / "model.safetensors")
        return entries

    monkeypatch.setattr(merging, "write_bundle", falsify)
    with pytest.raises(CheckpointError, match="merged, logits differ by"):
        merge_adapters(adapted.folder, tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_a_checkpoint_without_adapters_is_refused(adapted):
    with pytest.raises(CheckpointError, match="holds no adapters: give a checkpoint of a LoRA run"):
        load_apart(adapted.base)
