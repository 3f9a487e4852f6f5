import json
import sys

import pytest

from lit_llm.tokenizer import SentencePiece, load_tokenizer, save_tokenizer

MINE = """
from lit_llm.tokenizer import Tokenizer

class Mine(Tokenizer):
    vocab_size, special = 256, {}

    def __init__(self, key): self.key = key
    @property
    def fingerprint(self): return f"mine {self.key}"
    def encode(self, text): return [byte ^ self.key for byte in text.encode()]
    def token_bytes(self, id): return bytes([id ^ self.key])
    def save(self, folder): (folder / "key").write_text(str(self.key))
    @classmethod
    def load(cls, folder): return cls(int((folder / "key").read_text()))

class NotOne:
    @classmethod
    def load(cls, folder): raise AssertionError("must not be called")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module outside the package, with a tokenizer class."""
    (tmp_path / "my_tokenizers.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_tokenizers

    yield my_tokenizers
    del sys.modules["my_tokenizers"]


def name_class(folder, path: str) -> None:
    (folder / "tokenizer_class.json").write_text(json.dumps({"class_path": path}))


def test_our_own_tokenizer_comes_back(tmp_path):
    tokenizer = SentencePiece(vocab_size=300).train(["the miller and the baker of the village"] * 5)
    save_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    assert isinstance(load_tokenizer(tmp_path), SentencePiece)


def test_a_class_from_outside_the_package_comes_back(tmp_path, mine):
    save_tokenizer(mine.Mine(7), tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is mine.Mine
    assert loaded.decode(loaded.encode("é 7")) == "é 7"


def test_a_class_that_could_not_be_imported_again_is_refused_before_anything_is_written(
    tmp_path, mine, monkeypatch
):
    folder = tmp_path / "to"
    folder.mkdir()
    monkeypatch.setattr(mine.Mine, "__module__", "__main__")
    with pytest.raises(ValueError, match=r"__main__\.Mine cannot be imported by a later run"):
        save_tokenizer(mine.Mine(7), folder)
    assert list(folder.iterdir()) == []


def test_what_cannot_be_loaded_is_named(tmp_path, mine):
    with pytest.raises(ValueError, match=r"tokenizer_class\.json is missing"):
        load_tokenizer(tmp_path)
    for path in "no_such_module.Class", "my_tokenizers.NoSuchClass", "Class":
        name_class(tmp_path, path)
        with pytest.raises(ValueError, match=f"{path} cannot be imported"):
            load_tokenizer(tmp_path)
    name_class(tmp_path, "my_tokenizers.NotOne")
    with pytest.raises(ValueError, match=r"NotOne, which is no lit_llm\.tokenizer\."):
        load_tokenizer(tmp_path)
    name_class(tmp_path, "os.system")
    with pytest.raises(ValueError, match=r"tokenizer_class\.json names .* os\.system is no part"):
        load_tokenizer(tmp_path)
    for text in "{", "[]", "{}", '"os.system"':
        (tmp_path / "tokenizer_class.json").write_text(text)
        with pytest.raises(ValueError, match=r"tokenizer_class\.json does not name a class"):
            load_tokenizer(tmp_path)
