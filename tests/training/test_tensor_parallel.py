import pytest
import torch
from torch import nn

from lit_llm.model.config import GPTConfig
from lit_llm.training.divisible import check_divisible
from lit_llm.training.parallel import Sharding, build
from lit_llm.training.tensor_parallel import part_styles

SIZES = {"vocab_size": 50, "max_seq_len": 8, "d_model": 24, "n_head": 6, "n_kv_head": 2, "d_ff": 20}


@pytest.mark.parametrize(
    ("sizes", "devices", "message"),
    [
        ({}, 4, "n_head=6 does not split over tensor_parallel=4 devices"),
        ({"n_kv_head": 3}, 2, "n_kv_head=3 does not split over tensor_parallel=2 devices"),
        ({"d_ff": 21}, 2, "d_ff=21 does not split"),
        ({"max_seq_len": 7}, 2, "data.seq_len=7 does not split"),
        ({"pad_vocab_to": 1, "vocab_size": 51}, 2, "the padded vocabulary=51 does not split"),
        ({"dropout": 0.1}, 2, "dropout=0.1 with tensor_parallel=2"),
    ],
)
def test_sizes_that_do_not_split_are_refused(sizes, devices, message):
    with pytest.raises(ValueError, match=message):
        check_divisible(GPTConfig(**SIZES | sizes), devices)


def test_sizes_that_split_are_accepted():
    check_divisible(GPTConfig(**SIZES), 2)


class TwoDevices:
    """A mesh, as far as it is looked at before anything is split."""

    def __getitem__(self, name: str) -> "TwoDevices":
        return self

    def size(self) -> int:
        return 2


def test_blocks_that_are_split_are_not_compiled():
    sharding = Sharding(TwoDevices(), torch.device("cpu"))
    with pytest.raises(ValueError, match="torch cannot compile blocks that are split"):
        build(GPTConfig(**SIZES), sharding, compile=True)


def test_a_part_that_does_not_say_how_it_is_split_is_refused():
    with pytest.raises(ValueError, match="does not know how to split Linear"):
        part_styles(nn.Linear(2, 2))


def test_an_unknown_way_to_split_is_refused():
    class Odd(nn.Module):
        tensor_parallel = {"up_proj": "diagonals"}

        def __init__(self) -> None:
            super().__init__()
            self.up_proj = nn.Linear(2, 2)

    with pytest.raises(ValueError, match="'diagonals' is no way to split Odd"):
        part_styles(Odd())


def test_a_name_that_is_not_there_is_refused():
    class Misspelt(nn.Module):
        tensor_parallel = {"up": "columns"}

    with pytest.raises(ValueError, match="Misspelt has no up"):
        part_styles(Misspelt())
