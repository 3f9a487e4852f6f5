import pytest

from lit_llm.planning.devices import MEMORY, device_here, device_named, machine_memory


@pytest.mark.parametrize("name", MEMORY)
def test_every_device_has_about_the_memory_of_its_name_and_a_known_peak(name):
    device = device_named(name.lower())
    gigabytes = int(name.rpartition("-")[2].removesuffix("GB"))
    assert 0.93 * gigabytes < device.memory / 2**30 < 1.001 * gigabytes
    assert 5e13 < device.peak_flops < 3e15


def test_peaks_are_those_of_the_device():
    assert device_named("A100-40GB").peak_flops == device_named("A100-80GB").peak_flops == 312e12
    assert device_named("RTX4090-24GB").peak_flops == 165.2e12


def test_an_unknown_device_is_refused_in_one_line_with_its_neighbour():
    with pytest.raises(ValueError, match="did you mean H100-80GB") as error:
        device_named("h100-8gb")
    assert "\n" not in str(error.value)


def test_a_cpu_has_the_memory_of_the_machine_and_no_peak():
    device = device_here("cpu")
    assert device.memory > 2**28
    assert (device.peak_flops, device.is_gpu) == (None, False)


def test_a_system_that_does_not_say_its_memory_asks_for_a_device(monkeypatch):
    assert machine_memory() == device_here("cpu").memory
    monkeypatch.delattr("os.sysconf")
    assert machine_memory() is None
    with pytest.raises(ValueError, match="give --gpu NAME"):
        device_here("cpu")
