import json

from lit_llm.data.card import card_markdown, data_card


def test_units_are_summed_and_the_longest_document_named(tmp_path):
    def unit(name, train, val, bad):
        folder = tmp_path / name
        folder.mkdir()
        keys = ("documents", "bytes", "tokens", "trained", "longest", "source")
        stats = {
            "train": dict(zip(keys, train, strict=True)),
            "val": dict(zip(keys, val, strict=True)),
        }
        (folder / "stats.json").write_text(json.dumps(stats))
        sums = {"documents": train[0] + val[0], "conversations": 0, "bytes": 0, "bad": bad}
        (folder / "scan.json").write_text(json.dumps(sums))
        lines = [json.dumps({"source": f"{name}:{i}", "reason": "torn"}) for i in range(bad)]
        (folder / "bad.jsonl").write_text("".join(line + "\n" for line in lines))
        return folder

    units = [
        unit("a", (3, 100, 40, 40, 20, "a:2"), (1, 10, 5, 5, 5, "a:9"), 1),
        unit("b", (4, 200, 50, 30, 20, "b:1"), (0, 0, 0, 0, 0, ""), 101),
    ]
    unused = {"count": 2, "examples": ["ab", " c"]}
    about = {
        "class": "Bytes",
        "vocab_size": 264,
        "fingerprint": "f" * 64,
        "unused_pieces": unused,
    }
    card = data_card(units, units, 6, about, {"val_fraction": 0.1})
    assert card["train"] == {
        "documents": 7,
        "bytes": 300,
        "tokens": 90,
        "trained": 70,
        "longest": 20,
        "source": "a:2",
    }
    assert card["val"]["source"] == "a:9"
    assert card["bytes_per_token"] == 310 / 95
    assert card["bad"]["records"] == 102
    assert card["bad"]["share"] == 102 / 110
    assert len(card["bad"]["listed"]) == 100

    text = card_markdown(card)
    assert "| tokens | 90 | 5 |" in text
    assert "3.26 bytes per token (Bytes, 264 ids, ffffffffffff)" in text
    assert "2 pieces of the tokenizer unused: `'ab'`, `' c'`" in text
    assert "6 exact duplicates removed" in text
    assert "102 bad records left out (92.73%)" in text
    assert "- `a:0`: torn" in text
    assert "and 2 more: see bad.jsonl" in text
