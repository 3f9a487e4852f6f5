"""A source of data is prepared once and verified once; TextData's tests see the rest."""

import pytest

from lit_llm.data import source as module
from lit_llm.data.corpus import TextFiles
from lit_llm.data.source import Source
from lit_llm.tokenizer import SentencePiece


@pytest.fixture
def make(tmp_path):
    (tmp_path / "text.txt").write_text("the miller grinds\n" * 300)

    def make(corpus=None, **settings):
        given = {
            "val_fraction": 0.1,
            "val_split": "tails",
            "split_seed": 0,
            "deduplicate": True,
            "tokenizer_bytes": 10_000,
            "on_bad": "skip",
            "max_bad_share": 0.0,
            "prepare_workers": 1,
            "cache_dir": str(tmp_path / "cache"),
            "verify": True,
            "tokenizer_from": None,
        }
        corpus = TextFiles(tmp_path / "text.txt") if corpus is None else corpus
        return Source(corpus, SentencePiece(vocab_size=280), **given | settings)

    return make


def test_a_source_is_prepared_when_first_asked_for_and_then_kept(make):
    source = make()
    assert not source.verified
    prepared = source.prepared(progress=False)
    assert list(prepared) == ["corpus"]
    assert prepared["corpus"].work["encoded"] == 1
    assert source.prepared(progress=False) is prepared


def test_it_is_verified_once_and_says_so_where_it_took_long(make, monkeypatch):
    monkeypatch.setattr(module, "NOTICEABLE_SECONDS", 0)
    source = make()
    source.prepared(progress=False)
    assert source.verify() == "verified 0.0 GB of tokens in 0 s"
    assert source.verify() == ""
    assert make(verify=False).verify() == ""


def test_damage_is_found(make):
    source = make()
    (damaged,) = source.prepared(progress=False).values()
    file = damaged.train / "00000-tokens.bin"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"00000-tokens.bin is damaged"):
        source.verify()


def test_no_corpus_is_no_source(make):
    with pytest.raises(ValueError, match="names no corpus"):
        make(corpus={})
