import pytest
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_llm.commands.blame import refusal
from lit_llm.commands.compose import Configuration

STOPPING = "lightning.pytorch.callbacks.EarlyStopping"


def configuration(tmp_path, *classes):
    text = "".join(f"  - class_path: {path}\n" for path in classes)
    (tmp_path / "a.yaml").write_text(f"trainer:\n  callbacks:\n{text}")
    return Configuration([tmp_path / "a.yaml"])


def fault() -> MisconfigurationException:
    with pytest.raises(MisconfigurationException) as caught:
        EarlyStopping(monitor="val/loss", mode="least")
    return caught.value


def test_an_error_in_an_init_is_blamed_on_the_key_that_names_its_class(tmp_path):
    other = "lightning.pytorch.callbacks.DeviceStatsMonitor"
    key, text = refusal(fault(), configuration(tmp_path, other, STOPPING), [])
    assert key == "trainer.callbacks"
    assert text.startswith(f"{STOPPING}: `mode` can be min, max, got least")
    flags = ["--trainer.callbacks", STOPPING]
    assert refusal(fault(), Configuration(), flags) == (key, text)


def test_an_error_that_wraps_it_is_blamed_alike(tmp_path):
    outer = ValueError("cannot build it")
    outer.__cause__ = fault()
    assert refusal(outer, configuration(tmp_path, STOPPING), [])[0] == "trainer.callbacks"


def test_what_no_class_of_the_configuration_raised_is_nobodys(tmp_path):
    assert refusal(fault(), configuration(tmp_path, "a.b.Other"), []) is None
    assert refusal(ValueError("ours"), configuration(tmp_path, STOPPING), []) is None
