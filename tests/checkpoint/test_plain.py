import dataclasses
import json
import re
from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from lit_llm.checkpoint.plain import (
    gpt_from_plain,
    gpt_to_plain,
    lora_from_plain,
    part_from_plain,
    part_to_plain,
)
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.lora import Lora
from lit_llm.model.rope import RopeScaling

SIZES = {"vocab_size": 11, "max_seq_len": 7, "n_layer": 3, "d_model": 12, "n_head": 2, "d_ff": 5}
OURS = "lit_llm.model.attention.GroupedQueryAttention"


def _through_json(config: GPTConfig) -> GPTConfig:
    return gpt_from_plain(json.loads(json.dumps(gpt_to_plain(config))))


def _from_yaml(text: str, *, instantiator: bool = False) -> GPTConfig:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--gpt", type=GPTConfig, default=GPTConfig())
    if instantiator:  # as LightningCLI adds one, which changes what stands inside the partial
        parser.add_instantiator(lambda cls, *args, **kwargs: cls(*args, **kwargs), nn.Linear)
    return parser.instantiate(parser.parse_string(text)).gpt


def _assert_equal_networks(left: GPTConfig, right: GPTConfig) -> None:
    networks = [GPT(left).eval(), GPT(right).eval()]
    for network in networks:
        init_weights(network, seed=5, n_layer=left.n_layer)
    assert str(networks[0]) == str(networks[1])  # the classes of all parts
    tokens_BT = torch.tensor([[1, 10, 4, 0]])
    assert torch.equal(networks[0](tokens_BT), networks[1](tokens_BT))


def test_a_description_is_plain_and_complete():
    plain = gpt_to_plain(GPTConfig(**SIZES, qk_norm=True, rope_theta=1e5))
    assert plain == {
        **SIZES,
        "n_kv_head": None,
        "head_dim": None,
        "rope_theta": 100000.0,
        "rope_scaling": None,
        "sliding_window": None,
        "full_layers": 0,
        "norm_eps": 1e-5,
        "qkv_bias": False,
        "qk_norm": True,
        "tie_embeddings": False,
        "dropout": 0.0,
        "pad_vocab_to": 64,
        "attention": OURS,
        "mlp": "lit_llm.model.mlp.SwiGLU",
    }


def test_a_config_comes_back_equal():
    config = GPTConfig(**SIZES, n_kv_head=1, head_dim=4, dropout=0.1, tie_embeddings=True)
    assert _through_json(config) == config


@pytest.mark.parametrize("instantiator", [False, True], ids=["plain parser", "LightningCLI's"])
@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        (f"attention: {OURS}", OURS),
        ("", OURS),
        (
            "attention: {class_path: their_parts.Scaled, init_args: {span: [3, 4], by: 0.7}}",
            {
                "class_path": "their_parts.Scaled",
                "init_args": {"span": {"__tuple__": [3, 4]}, "by": 0.7},
            },
        ),
        (
            "attention: their_parts.Scaled",  # jsonargparse fills the defaults in
            {
                "class_path": "their_parts.Scaled",
                "init_args": {"span": {"__tuple__": [1, 2]}, "by": 1.0},
            },
        ),
    ],
)
def test_an_attention_named_in_yaml_comes_back(theirs, attention, expected, instantiator):
    sizes = "\n".join(f"  {name}: {value}" for name, value in SIZES.items())
    config = _from_yaml(f"gpt:\n{sizes}\n  {attention}\n", instantiator=instantiator)
    assert gpt_to_plain(config)["attention"] == expected
    again = _through_json(config)
    _assert_equal_networks(config, again)
    if isinstance(expected, dict):
        built, rebuilt = (GPT(one).blocks[1].attn for one in (config, again))
        assert type(rebuilt) is theirs.Scaled
        assert (rebuilt.span, rebuilt.by) == (built.span, built.by)


def test_an_mlp_given_as_class_or_function_comes_back(theirs):
    for name in ("Shared", "shared"):
        config = _from_yaml(f"gpt: {{d_model: 12, n_head: 2, mlp: their_parts.{name}}}")
        assert gpt_to_plain(config)["mlp"] == f"their_parts.{name}"
        _assert_equal_networks(config, _through_json(config))


def test_a_partial_written_in_python_comes_back(theirs):
    config = GPTConfig(**SIZES, attention=partial(theirs.Scaled, by=0.3))
    again = _through_json(config).attention
    assert (again.func, again.args, again.keywords) == (theirs.Scaled, (), {"by": 0.3})


def test_unknown_and_missing_fields_are_named():
    plain = gpt_to_plain(GPTConfig())
    with pytest.raises(ValueError, match="unknown fields: alibi, n_expert"):
        gpt_from_plain({**plain, "n_expert": 8, "alibi": True})
    del plain["qk_norm"]
    with pytest.raises(ValueError, match="lacks fields: qk_norm"):
        gpt_from_plain(plain)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("their_partz.Scaled", "their_partz.Scaled cannot be imported (No module named"),
        ("their_parts.Gone", "their_parts.Gone cannot be imported"),
        ({"class_path": "subprocess.Popen", "init_args": {}}, "subprocess.Popen is no part of a"),
        ({"class_path": "os.system", "init_args": {"command": "true"}}, "os.system is no part of"),
        ("torch.hub.load", "attention: torch.hub.load is no Attention"),
        ("torch.nn.Linear", "attention: torch.nn.Linear is no Attention"),
        (
            {"class_path": "their_parts.shared", "init_args": {"layer": 1}},
            "their_parts.shared is no Attention",
        ),
    ],
)
def test_only_importable_parts_of_networks_are_rebuilt(theirs, attention, message):
    plain = {**gpt_to_plain(GPTConfig()), "attention": attention}
    with pytest.raises(ValueError, match=re.escape(message)):
        gpt_from_plain(plain)


def test_what_cannot_be_rebuilt_is_refused_when_it_is_described(theirs):
    class Local(theirs.Scaled):
        pass

    refused = {
        "cannot be imported where": Local,
        "Outer.Inner cannot be imported": theirs.Outer.Inner,
        "span is a set": partial(theirs.Scaled, span={1, 2}),
        "positional arguments": partial(theirs.Scaled, GPTConfig()),
        "is no class": partial(theirs.shared, layer=3),
        "<lambda>": lambda config, layer: theirs.Scaled(config, layer),
    }
    for message, attention in refused.items():
        with pytest.raises(ValueError, match=message):
            gpt_to_plain(GPTConfig(attention=attention))


def test_a_part_is_described_by_its_arguments(theirs):
    plain = part_to_plain(theirs.Remembers(share=0.15))
    assert plain == {
        "class_path": "their_parts.Remembers",
        "init_args": {"share": 0.15, "name": None},
    }
    again = part_from_plain(plain, theirs.Remembers)
    assert (again.share, again.name) == (0.15, None)
    assert part_from_plain(part_to_plain(theirs.Data(0.5)), theirs.Data) == theirs.Data(0.5)


def test_a_part_that_forgets_its_arguments_is_refused(theirs):
    with pytest.raises(ValueError, match=r"Forgets does not remember its argument share.*set self"):
        part_to_plain(theirs.Forgets())


def test_a_part_of_another_kind_is_refused(theirs):
    with pytest.raises(ValueError, match="Remembers is no Data"):
        part_from_plain(part_to_plain(theirs.Remembers()), theirs.Data)


def test_a_scaling_of_rotations_comes_back():
    config = GPTConfig(rope_scaling=RopeScaling(factor=4.0), sliding_window=7, full_layers=1)
    plain = json.loads(json.dumps(gpt_to_plain(config)))
    assert plain["rope_scaling"]["factor"] == 4.0
    assert gpt_from_plain(plain) == config


def test_a_description_from_before_a_field_was_there_means_what_it_meant():
    plain = gpt_to_plain(GPTConfig())
    for later in ("rope_scaling", "sliding_window", "full_layers", "qkv_bias"):
        del plain[later]
    assert gpt_from_plain(plain) == GPTConfig()


def test_a_description_of_adapters_has_every_field():
    plain = dataclasses.asdict(Lora(rank=4, alpha=3.0))
    assert lora_from_plain(plain) == Lora(rank=4, alpha=3.0)
    del plain["alpha"]
    with pytest.raises(ValueError, match="lacks fields: alpha"):
        lora_from_plain(plain)
