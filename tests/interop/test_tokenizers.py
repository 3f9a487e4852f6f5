"""3,000 random texts have the same tokens in ours and in transformers."""

import json
from pathlib import Path

import pytest
import transformers

from lit_llm.checkpoint.hf.strings import random_texts, typed_control
from lit_llm.checkpoint.hf.tokenizer_files import read_foreign_tokenizer, write_tokenizer
from lit_llm.tokenizer import SentencePiece

pytestmark = pytest.mark.interop


def compare(ours, theirs, texts: list[str], **options) -> int:
    """How many texts have the same tokens."""
    options = {"add_special_tokens": False, **options}
    return sum(theirs(text, **options)["input_ids"] == ours.encode(text) for text in texts)


@pytest.mark.parametrize("kind", ["bpe", "char", "smollm2"])
def test_the_tokens_are_the_same(kind, tmp_path, found, request):
    if kind == "smollm2":
        folder = request.getfixturevalue("smollm2")
        ours, _ = read_foreign_tokenizer(folder)
    else:
        folder = tmp_path
        code = [path.read_text() for path in Path(json.__file__).parent.glob("*.py")]
        ours = SentencePiece(vocab_size=2048, model_type=kind).train(code)
        write_tokenizer(ours, folder, chat=True, max_seq_len=256)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    plain = [t for t in random_texts(3300, seed=3) if not any(c in t for c in ours.control)][:3000]
    typed = typed_control(sorted(ours.control), 500, seed=4)
    same = compare(ours, theirs, plain), compare(ours, theirs, typed, split_special_tokens=True)
    found(f"tokenizer, {kind}", "transformers", f"{same[0]} of 3,000 texts, {same[1]} of 500 typed")
    assert same == (3000, 500)
