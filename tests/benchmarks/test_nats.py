"""The scorer of both models, against predictions worked out by hand."""

import math

import pytest
import torch

from benchmarks.nats import cut, summed_nats

V = 5


def uniform(inputs_BT):
    return torch.zeros(*inputs_BT.shape, V)


@pytest.mark.parametrize("context", [1, 3, 4, 11, 50])
def test_every_id_but_the_first_counts_once(context):
    ids = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert summed_nats(uniform, ids, context) == pytest.approx(11 * math.log(V))


def test_a_prediction_sees_what_is_before_it_in_its_window():
    seen = []

    def model(inputs_BT):
        seen.extend(inputs_BT.tolist())
        # sure of the id after the current one, and of nothing else
        return 1000.0 * torch.nn.functional.one_hot((inputs_BT + 1) % V, V)

    assert summed_nats(model, [0, 1, 2, 3, 4, 0, 1, 2], 3) == pytest.approx(0)
    assert seen == [[0, 1, 2], [3, 4, 0], [1]]
    assert summed_nats(model, [0, 1, 3], 3) == pytest.approx(1000)


def test_many_windows_are_read_in_parts_that_lose_none():
    ids = torch.randint(0, V, (1001,), generator=torch.Generator().manual_seed(1)).tolist()

    def model(inputs_BT):
        return inputs_BT[..., None].float() * torch.arange(V)

    rows = torch.tensor(ids[:-1])[:, None].float() * torch.arange(V)
    expected = -rows.log_softmax(-1)[torch.arange(1000), ids[1:]].sum()
    assert summed_nats(model, ids, 7) == pytest.approx(expected.item(), rel=1e-5)


def test_the_last_tenth_begins_where_nanogpts_does():
    text = "abcdefghijklmno"
    assert cut(text) == (text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :])
