import math

import pytest
import torch

from lit_llm.data.batch import IGNORE
from lit_llm.objective import LossSums
from lit_llm.training.meter import TrainMeter, ValMeter

BYTES_V = torch.tensor([0, 3, 1], dtype=torch.int32)


def sums(loss: float, targets: list[int]) -> LossSums:
    targets_BT = torch.tensor([targets])
    return LossSums(torch.tensor(loss), (targets_BT != IGNORE).sum(), targets_BT)


FIRST, SECOND = sums(2.0, [1, IGNORE, 2]), sums(7.0, [1])


@pytest.mark.parametrize("meter", [TrainMeter(), ValMeter()], ids=["train", "val"])
def test_metrics_are_of_all_tokens_and_no_mean_of_means(meter):
    meter.prepare(BYTES_V, torch.device("cpu"))
    meter.add(FIRST)
    meter.add(SECOND)
    prefix, arguments = (
        ("train", [lambda *sums: sums]) if isinstance(meter, TrainMeter) else ("val", [])
    )
    metrics = {name: float(value) for name, value in meter.compute(*arguments).items()}
    assert metrics == pytest.approx(
        {
            f"{prefix}/loss": 3.0,  # 9 nats, 3 tokens
            f"{prefix}/perplexity": math.e**3,
            f"{prefix}/bits_per_byte": 9 / math.log(2) / 7,  # 3 + 1 + 3 bytes
        }
    )


def test_a_reset_forgets():
    meter = ValMeter()
    meter.prepare(BYTES_V, torch.device("cpu"))
    meter.add(FIRST)
    meter.reset()
    meter.add(SECOND)
    assert float(meter.compute()["val/loss"]) == 7.0
