import pytest

from lit_llm.data.assemble import open_prepared
from lit_llm.data.corpus import TextFiles
from lit_llm.data.prepare import prepare
from lit_llm.data.sealed import MANIFEST, seal
from lit_llm.tokenizer import SentencePiece, report


def test_the_card_names_the_pieces_that_no_training_text_uses(tmp_path):
    learned = ["The baker bakes bread in the bakery.", "A sailor sails the ship over the sea."] * 9
    tokenizer = SentencePiece(vocab_size=300).train(learned)
    (tmp_path / "text.txt").write_text(learned[0])
    prepared = prepare(
        TextFiles(tmp_path / "text.txt"),
        tokenizer,
        cache_dir=tmp_path / "cache",
        val_fraction=0,
        workers=0,
        progress=False,
    )
    expected = report(tokenizer, learned[:1])["unused_pieces"]
    assert prepared.card["tokenizer"]["unused_pieces"] == expected
    assert 0 < expected["count"] < 300 - 265


def test_a_card_that_describes_no_data_is_refused_although_its_manifest_agrees(tmp_path):
    (tmp_path / "text.txt").write_text("the miller sold the baker a sack of flour. " * 90)
    prepared = prepare(
        TextFiles(tmp_path / "text.txt"),
        SentencePiece(vocab_size=290),
        cache_dir=tmp_path / "cache",
        val_fraction=0,
        workers=0,
        progress=False,
    )
    for card in (b"\x80\x04]", b"[]", b'{"settings": {"val_fraction": {}}}'):
        (prepared.folder / "card.json").write_bytes(card)
        (prepared.folder / MANIFEST).unlink()
        seal(prepared.folder)
        with pytest.raises(ValueError, match=r"card\.json does not describe data: delete"):
            open_prepared(prepared.folder)
