from time import perf_counter

import pytest
import torch

from lit_llm.planning.peak_flops import device_name, measured_cpu_flops, peak_bf16_flops


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
        ("NVIDIA A40", 149.7),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307.4),
        ("AMD Instinct MI300X OAM", 1307.4),
        ("AMD Instinct MI325X", 1307.4),
        ("AMD Instinct MI250X", 191.5),
        ("Tesla V100-SXM2-32GB", 125),  # this and the next have float16 only
        ("Tesla V100-PCIE-16GB", 112),
        ("Tesla V100S-PCIE-32GB", 130),
        ("Tesla T4", 65),
    ],
)
def test_a_known_device_has_the_dense_peak_of_its_data_sheet(name, teraflops):
    assert peak_bf16_flops(name) == teraflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "Tesla P100-PCIE-16GB",
        "NVIDIA L40G",
        "NVIDIA A10-8Q",
        "NVIDIA RTX 6000",
        "Quadro RTX 6000",
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "AMD Instinct MI300A",
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


def test_the_peak_of_a_cpu_is_what_its_matmuls_reach():
    begun = perf_counter()
    peak = measured_cpu_flops(torch.float32)
    assert perf_counter() - begun < 1
    a = torch.ones(640, 640)
    seconds = []
    for _ in range(20):
        before = perf_counter()
        a @ a
        seconds.append(perf_counter() - before)
    # Other processes and the size of the matrix move both; a wrong unit would be far off.
    assert 0.2 < 2 * 640**3 / min(seconds) / peak < 5


def test_a_slow_kernel_does_not_hold_the_run_up(monkeypatch):
    now, sizes = [100.0], []

    def slow(a, b):
        sizes.append(a.size(0))
        now[0] += 2 * a.size(0) ** 3 / 3e9  # 3 GFLOP/s: bfloat16 on a CPU without it

    monkeypatch.setattr("lit_llm.planning.peak_flops.perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "mm", slow)
    assert measured_cpu_flops(torch.float32) == pytest.approx(3e9)
    assert now[0] - 100 < 0.4
    assert set(sizes) == {512}
