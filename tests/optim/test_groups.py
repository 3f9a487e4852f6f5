import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.optim.groups import parameter_groups

SIZES = {"vocab_size": 64, "d_model": 12, "n_layer": 2, "n_head": 3, "d_ff": 20}


def shapes(groups):
    return {group["kind"]: sorted(tuple(p.shape) for p in group["params"]) for group in groups}


def test_every_parameter_is_in_the_group_of_its_kind():
    gpt = GPT(GPTConfig(**SIZES))
    by_kind = shapes(parameter_groups(gpt))
    assert by_kind["embedding"] == [(64, 12)]
    assert by_kind["head"] == [(64, 12)]
    assert by_kind["vector"] == [(12,)] * 5  # two norms a block, one at the end
    assert by_kind["matrix"] == sorted([(12, 12)] * 8 + [(20, 12)] * 4 + [(12, 20)] * 2)


def test_tied_embeddings_are_one_parameter_and_no_head():
    gpt = GPT(GPTConfig(**SIZES, tie_embeddings=True))
    assert [group["kind"] for group in parameter_groups(gpt)] == ["embedding", "matrix", "vector"]


def test_options_override_the_optimizer_and_norms_do_not_decay():
    gpt = GPT(GPTConfig(**SIZES))
    groups = parameter_groups(gpt, {"embedding": {"lr": 0.5}})
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3)
    settings = {g["kind"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert settings == {
        "embedding": (0.5, 0.3),
        "matrix": (0.1, 0.3),
        "head": (0.1, 0.3),
        "vector": (0.1, 0.0),
    }


def test_frozen_parameters_are_left_out():
    gpt = GPT(GPTConfig(**SIZES))
    gpt.embed.requires_grad_(False)
    assert "embedding" not in shapes(parameter_groups(gpt))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'embeddings' is no kind of parameter"):
        parameter_groups(GPT(GPTConfig(**SIZES)), {"embeddings": {}})
