import json
import math

import pytest

from lit_llm.evaluation.result import Metric, Result, ratio, share, shares


def test_a_share_has_the_standard_error_of_a_mean():
    # 3 of 5: sqrt(0.6 * 0.4 / 4)
    assert share("accuracy", [True, True, False, True, False]) == Metric(
        "accuracy", 0.6, math.sqrt(0.06), 5
    )
    assert share("accuracy", [True]) == Metric("accuracy", 1.0, None, 1)


def test_a_ratio_of_sums_by_hand():
    # r = 9 / 6; residuals 2 - 1.5, 4 - 3, 3 - 4.5: squares sum to 0.25 + 1 + 2.25
    metric = ratio("nats", [2, 4, 3], [1, 2, 3])
    assert metric.value == 1.5
    assert metric.stderr == pytest.approx(math.sqrt(3 / 2 * 3.5) / 6)
    doubled = ratio("nats", [2, 4, 3], [1, 2, 3], scale=2)
    assert (doubled.value, doubled.stderr) == (3.0, pytest.approx(2 * metric.stderr))
    assert ratio("nats", [2], [1]).stderr is None


def test_equal_parts_make_a_ratio_the_mean_that_it_is():
    values = [0.5, 1.5, 4.0, 2.0]
    metric, mean = ratio("nats", values, [1] * 4), 2.0
    variance = sum((value - mean) ** 2 for value in values) / 3
    assert metric.value == mean
    assert metric.stderr == pytest.approx(math.sqrt(variance / 4))


def test_what_is_no_number_is_null_in_json():
    result = Result("it", [Metric("perplexity", math.inf, math.nan, 3)], {"tokens": 4})
    assert json.loads(json.dumps(result.plain(), allow_nan=False)) == {
        "task": "it",
        "metrics": {"perplexity": {"value": None, "stderr": None, "count": 3}},
        "counts": {"tokens": 4},
        "settings": {},
    }


def test_shares_are_told_by_kind_in_the_order_in_which_kinds_come():
    metrics = shares("acc", [True, False, True, True], ["b", "a", None, "b"])
    assert [(metric.name, metric.value, metric.count) for metric in metrics] == [
        ("acc", 0.75, 4),
        ("acc/b", 1.0, 2),
        ("acc/a", 0.0, 1),
    ]
