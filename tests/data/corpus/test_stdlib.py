import sysconfig
from pathlib import Path

import pytest

from lit_llm.data.clean import check
from lit_llm.data.corpus import PythonStdlib
from lit_llm.data.corpus.base import Bad


def test_it_is_some_ten_megabytes_without_tests_and_packages():
    records = [check(record) for unit in PythonStdlib().units() for record in unit.read()]
    assert not [record for record in records if isinstance(record, Bad)]
    sources = {record.source for record in records}
    assert {"json/decoder.py", "argparse.py", "asyncio/events.py"} <= sources
    assert not [s for s in sources if "site-packages" in s or "/test/" in s or s[:5] == "test/"]
    assert 6e6 < sum(len(record.text) for record in records) < 30e6


def test_a_python_without_sources_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(ValueError, match=r"no \.py files in"):
        PythonStdlib().units()
    assert Path(tmp_path).is_dir()
