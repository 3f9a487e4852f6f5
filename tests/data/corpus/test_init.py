import subprocess
import sys

import pytest

from lit_llm.data import corpus


def test_every_name_is_there():
    for name in corpus.__all__:
        assert getattr(corpus, name).__name__ == name
    with pytest.raises(AttributeError, match="Hamlet"):
        _ = corpus.Hamlet


def test_the_village_may_be_imported_first_and_datasets_is_not_imported():
    code = """
import sys
from lit_llm.data.village.corpus import Village
from lit_llm.data import corpus
assert corpus.Village is Village
assert not {"datasets", "pyarrow", "torch", "lightning"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
