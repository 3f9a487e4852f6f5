import pytest
import torch

from lit_llm.callbacks.peak_flops import device_name, peak_bf16_flops


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [  # names as drivers give them
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_a_known_device_has_the_dense_peak_of_its_data_sheet(name, teraflops):
    assert peak_bf16_flops(name) == teraflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "Tesla T4",
        "NVIDIA L40",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
    ],
)
def test_a_device_that_is_not_in_the_table_has_no_made_up_peak(name):
    assert peak_bf16_flops(name) is None


def test_a_cpu_is_called_cpu():
    assert device_name(torch.device("cpu")) == "cpu"
