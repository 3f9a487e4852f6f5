import pytest
from jsonargparse import Namespace

from lit_llm.commands.refusals import refuse_early, trainer_refusal


def trainer(**given) -> Namespace:
    settings = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": "32-true"}
    return Namespace(**{**settings, **given})


def sharded(**arguments) -> Namespace:
    path = "lit_llm.training.strategy.Sharded"
    return Namespace(class_path=path, init_args=Namespace(**arguments))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strategy": "dpp"}, "--trainer.strategy: there is no 'dpp'; did you mean ddp?"),
        ({"accelerator": "tpu"}, "trainer.accelerator=tpu: give auto, cpu or gpu (no such)"),
        ({"devices": "0"}, "trainer.devices=0: give 1 or more, or auto (no such)"),
        ({"devices": -5}, "trainer.devices=-5: give 1 or more, or auto (no such)"),
        ({"devices": -1}, "trainer: no such\n(with trainer.accelerator=cpu, trainer.devices=-1"),
    ],
)
def test_what_a_trainer_refuses_is_said_with_its_key_and_a_remedy(given, words):
    assert trainer_refusal(trainer(**given), ValueError("no\n such")).startswith(words)


def test_blocks_are_not_both_split_and_compiled():
    split = trainer(strategy=sharded(tensor_parallel="auto"))
    refuse_early(split)
    refuse_early(trainer(strategy=sharded(tensor_parallel=1)), compile=True)
    with pytest.raises(ValueError, match=r"model\.compile=true .* Give --model\.compile false"):
        refuse_early(split, compile=True)


def test_a_half_precision_of_the_cpu_is_refused_and_bfloat16_is_not():
    refuse_early(trainer(precision="bf16-mixed"))
    with pytest.raises(ValueError, match="precision=16-mixed needs a GPU"):
        refuse_early(trainer(precision="16-mixed"))
