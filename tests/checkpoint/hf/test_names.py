import pytest
import transformers

from lit_llm.checkpoint.hf.architectures import from_hf_config
from lit_llm.checkpoint.hf.names import from_hf, to_hf
from lit_llm.model.size import skeleton
from tests.checkpoint.hf.published import FAMILIES, their_config


@pytest.mark.parametrize("family", FAMILIES)
def test_each_weight_has_the_name_that_transformers_gives_it(family):
    config = their_config(family)
    theirs = getattr(transformers, f"{FAMILIES[family][0]}ForCausalLM")(config).state_dict()
    ours = skeleton(from_hf_config(config.to_dict())).state_dict()
    assert {to_hf(name): tuple(tensor.shape) for name, tensor in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in theirs.items()
    }
    assert [from_hf(to_hf(name)) for name in ours] == list(ours)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.experts.0.up_proj.weight", "visual.proj"])
def test_a_weight_that_we_do_not_have_has_no_name(name):
    with pytest.raises(KeyError):
        from_hf(name)
