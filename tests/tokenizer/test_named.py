import sys

import pytest
from torch import nn

from lit_llm.tokenizer.named import import_named, is_pythons_own


def test_a_class_is_found_by_its_import_path():
    assert import_named("torch.nn.Linear") is nn.Linear


@pytest.mark.parametrize(
    "path", ["os.system", "posix.system", "subprocess.Popen", "builtins.exec", "__main__.anything"]
)
def test_what_belongs_to_python_itself_is_refused(path):
    with pytest.raises(ValueError, match=f"{path} is no part of a model or a training run"):
        import_named(path)


def test_a_module_of_pythons_own_is_not_even_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ValueError, match="no part of a model"):
        import_named("this.s")  # it prints a poem when it is imported
    assert "this" not in sys.modules


def test_the_timeout_of_a_strategy_can_be_a_class_of_pythons_own():
    assert not is_pythons_own("datetime.timedelta")
    assert is_pythons_own("datetime.datetime")


@pytest.mark.parametrize("ends", ["raise OSError('no disk')", "raise SystemExit(0)"])
def test_a_module_that_breaks_off_is_an_error_and_not_the_end(tmp_path, monkeypatch, ends):
    (tmp_path / "ends_at_once.py").write_text(ends)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"ends_at_once\.Part cannot be imported \((no disk|0)\)"):
        import_named("ends_at_once.Part")
