from lit_llm.data.corpus import TextFiles
from lit_llm.data.prepare import prepare
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
