"""SentencePiece keeps every text, lets none type a control token, and is trained the same twice."""

import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece as spm
import transformers  # reads tokenizer.model by protobuf

from lit_llm.tokenizer import SPECIAL, HuggingFace, SentencePiece, Tokenizer

WORDS = "the miller baker weaver of village river bridge sold bought 3 17 loaves (and) <b> flour"
SIZES = {"bpe": 389, "unigram": 320, "char": 700}  # char stops at what there is

# Each broke some tokenizer: see the issue and the SentencePiece sources.
HARD = [
    "",
    " ",
    "   leading and trailing   ",
    "a\tb\t\tc",
    "a\nb\n\n\nc\r\nd\re",
    "\u2581",
    "a\u2581b \u2581\u2581 c\u2581",
    "\u2585 \u2047 <0x41> <unk> \u2581<s>",
    "\0",
    "a\0\0b",
    "\ufeffbom in front and \ufeff inside",
    "👩‍👩‍👧‍👦 🇩🇪 ☕️",
    "e\u0301 \u0301 a\u0308\u0323",
    "\ufb01 \u212b \u2460 \uff48 \u00a0 \u3000 \u200b \u2028 \u00ad",
    "\x01\x02\x1b[0m\x7f\x85\x9f",
    "\ufffd\ufffe\uffff\U0010ffff\ue000",
    "漢字とかな, עברית, हिन्दी",
    "<s></s><pad><mask><system><user>hi<end><assistant>",
    "1234567890 3.14",
]


def corpus(n: int = 400) -> list[str]:
    """Sentences of a fixed seed, in which control tokens are typed as well."""
    draw = random.Random(5)
    lines = [" ".join(draw.choices(WORDS.split(), k=draw.randint(3, 30))) for _ in range(n)]
    return [f"{line}.\n    {line[::-1]}\n<user> <s>" for line in lines]


@pytest.fixture(scope="module", params=sorted(SIZES))
def tokenizer(request) -> SentencePiece:
    return SentencePiece(vocab_size=SIZES[request.param], model_type=request.param).train(corpus())


@pytest.fixture(scope="module")
def bpe() -> SentencePiece:
    return SentencePiece(vocab_size=SIZES["bpe"]).train(corpus())


def fuzz(n: int) -> list[str]:
    """Strings out of everything that Unicode has, with the awkward parts often."""
    draw = random.Random(20_000)
    rare = [piece for text in HARD for piece in (text, *text)]

    def character() -> str:
        kind = draw.random()
        if kind < 0.3:
            return draw.choice(rare)
        if kind < 0.5:
            return draw.choice(" \n\t ")
        if kind < 0.8:
            return draw.choice(WORDS)
        code = draw.randrange(0x110000 if kind < 0.9 else 0x3000)
        return chr(code) if not 0xD800 <= code < 0xE000 else draw.choice(WORDS)

    return ["".join(character() for _ in range(draw.randint(0, 25))) for _ in range(n)]


def test_twenty_thousand_random_strings_come_back_and_hold_no_control_token(tokenizer):
    texts = fuzz(20_000)
    control = set(tokenizer.special.values()) | {0}
    encoded = tokenizer.encode_batch(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert tokenizer.decode(ids) == text
        assert control.isdisjoint(ids)


@pytest.mark.parametrize("text", HARD)
def test_hard_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batch_equals_one_by_one(tokenizer):
    texts = [*HARD, "mill " * 3000, *fuzz(50)]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_a_long_text_has_the_ids_that_sentencepiece_gives_it_whole(bpe):
    text = "".join(t for t in corpus(300) + fuzz(1500) if "\u2581" not in t)
    assert len(text) > 50_000
    processor = spm.SentencePieceProcessor(model_proto=bpe._ready().serialized_model_proto())
    assert bpe.encode(text) == processor.encode(text)


def test_megabytes_without_a_space_come_back(bpe):
    text = "baker漢" * 300_000
    assert bpe.decode(bpe.encode(text)) == text


def test_ids_start_with_unknown_control_tokens_and_bytes(tokenizer):
    assert list(tokenizer.special) == list(SPECIAL)
    assert list(tokenizer.special.values()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [tokenizer.token_bytes(id) for id in range(9)] == [b""] * 9
    assert [tokenizer.token_bytes(9 + byte) for byte in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]


def test_token_bytes_joined_are_the_text(tokenizer):
    text = "\u2581 weaver\tand ☕️\0"
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes(id) for id in ids) == text.encode()


def test_control_tokens_leave_no_trace_and_broken_utf8_is_marked(bpe):
    assert bpe.decode([2, *bpe.encode("of"), 8, 3]) == "of"
    assert bpe.decode([9 + 0xE2, 9 + 0x96]) == "\ufffd"


def test_an_id_outside_the_vocabulary_is_refused(bpe):
    with pytest.raises(ValueError, match=r"id 389 is outside the vocabulary \(vocab_size=389\)"):
        bpe.decode([389])
    with pytest.raises(ValueError, match="id -1 is outside"):
        bpe.token_bytes(-1)


@pytest.mark.parametrize("use", ["encode", "encode_batch", "train"])
def test_a_lone_surrogate_is_refused_with_its_place(bpe, use):
    tokenizer = SentencePiece() if use == "train" else bpe
    with pytest.raises(ValueError, match=r"lone surrogate, U\+D83D, at character 2"):
        getattr(tokenizer, use)("ab\ud83d" if use == "encode" else ["ab\ud83d"])


def test_vocab_size_is_what_was_asked_for_but_char_stops_at_its_characters():
    n_characters = len(set("".join(corpus())))
    assert SentencePiece(vocab_size=400).train(corpus()).vocab_size == 400
    char = SentencePiece(vocab_size=700, model_type="char", character_coverage=1.0).train(corpus())
    assert char.vocab_size == 265 + n_characters
    assert len(char.encode("river 17")) == 8


def test_digits_are_single_tokens_unless_told_otherwise():
    texts = ["year 2024 2024 2024 "] * 5000 + corpus()
    split = SentencePiece(vocab_size=389).train(texts)
    joined = SentencePiece(vocab_size=389, split_digits=False).train(texts)
    in_digits = [b" ", b"2", b"0", b"2", b"4"]
    assert [split.token_bytes(id) for id in split.encode(" 2024")] == in_digits
    assert [joined.token_bytes(id) for id in joined.encode(" 2024")] == [b" 2024"]


def test_indentation_is_one_token():
    texts = ["def f():\n        return x\n"] * 5000 + corpus()
    tokenizer = SentencePiece(vocab_size=389).train(texts)
    pieces = [tokenizer.token_bytes(id) for id in tokenizer.encode("\n        return")]
    assert b"        " in pieces


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_too_large_a_vocabulary_names_the_largest_that_works(kind):
    texts = corpus(20)
    with pytest.raises(ValueError, match="vocab_size=50257 is too large for this text") as error:
        SentencePiece(vocab_size=50_257, model_type=kind).train(texts)
    largest = int(str(error.value).split("give vocab_size=")[1].split()[0])
    tokenizer = SentencePiece(vocab_size=largest, model_type=kind).train(texts)
    assert tokenizer.vocab_size == largest
    with pytest.raises(ValueError, match="too large"):
        SentencePiece(vocab_size=largest + 1, model_type=kind).train(texts)


def test_too_small_a_vocabulary_names_the_smallest_that_works():
    texts = ["abcdef"] * 9
    with pytest.raises(ValueError, match="give vocab_size=271 or more"):  # 265 and six letters
        SentencePiece(vocab_size=266, model_type="bpe").train(texts)
    assert SentencePiece(vocab_size=271).train(texts).vocab_size == 271


def test_gpt2s_vocabulary_size_can_be_learned():
    draw = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(4, 9))) for _ in range(30_000)]
    texts = [" ".join(words[i : i + 100]) for i in range(0, len(words), 100)]
    tokenizer = SentencePiece(vocab_size=50_257).train(texts)
    assert tokenizer.vocab_size == 50_257
    assert tokenizer.decode(tokenizer.encode(texts[7])) == texts[7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 265}, "vocab_size=265 has no room for 8 control tokens and 256 bytes"),
        ({"model_type": "word"}, "model_type='word': choose one of bpe, unigram, char"),
        ({"max_train_chars": 10}, "max_train_chars=10"),
        ({"model": "no/such/file"}, "no tokenizer model at no/such/file"),
        ({"model": __file__}, "is no SentencePiece model"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        SentencePiece(**settings)


def test_an_empty_corpus_is_refused():
    for texts in [], [""], ["", "\0\u2581"]:
        with pytest.raises(ValueError, match="the corpus is empty"):
            SentencePiece().train(texts)


def test_before_training_only_the_recipe_can_be_asked_for():
    recipe = SentencePiece(vocab_size=389)
    assert not recipe.trained
    assert recipe.recipe()["vocab_size"] == 389
    for ask in (
        lambda: recipe.encode("a"),
        lambda: recipe.vocab_size,
        lambda: recipe.fingerprint,
        lambda: recipe.special,
    ):
        with pytest.raises(ValueError, match="still to be trained"):
            ask()


def test_training_makes_a_copy_that_is_trained_once(bpe):
    recipe = SentencePiece(vocab_size=389)
    assert recipe.train(corpus()).trained
    assert not recipe.trained
    with pytest.raises(ValueError, match="trained already"):
        bpe.train(corpus())


def test_settings_and_training_change_the_recipe(bpe):
    recipes = [
        SentencePiece(),
        SentencePiece(vocab_size=389),
        SentencePiece(model_type="char"),
        SentencePiece(split_digits=False),
        SentencePiece(character_coverage=1.0),
        SentencePiece(max_train_chars=5000),
        bpe,
    ]
    assert len({str(tokenizer.recipe()) for tokenizer in recipes}) == len(recipes)
    assert SentencePiece().recipe() == SentencePiece().recipe()


PRINT_FINGERPRINT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("here", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
for kind, size in sorted(here.SIZES.items()):
    print(here.SentencePiece(vocab_size=size, model_type=kind).train(here.corpus()).fingerprint)
"""


def test_another_process_with_other_hashes_and_one_core_trains_the_same_bytes():
    ours = [
        SentencePiece(vocab_size=size, model_type=kind).train(corpus()).fingerprint
        for kind, size in sorted(SIZES.items())
    ]
    one_core = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    prefix = one_core if sys.platform == "linux" else ""
    printed = subprocess.run(
        [sys.executable, "-c", prefix + PRINT_FINGERPRINT, __file__],
        env={"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split() == ours
    assert printed.stderr == ""  # the trainer's log is off


def test_other_text_gives_another_fingerprint(bpe):
    other = SentencePiece(vocab_size=389).train(corpus(399))
    assert other.fingerprint != bpe.fingerprint


def test_training_prints_nothing_even_when_it_fails(capfd):
    SentencePiece(vocab_size=389).train([*corpus(), "x" * 100_000, "\u2585\0"])
    with pytest.raises(ValueError, match="too large"):
        SentencePiece(vocab_size=9999).train(corpus())
    assert capfd.readouterr() == ("", "")


def test_a_saved_model_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = SentencePiece.load(tmp_path)
    same(loaded, tokenizer)
    same(SentencePiece(model=str(tmp_path / "tokenizer.model")), tokenizer)


def test_it_survives_pickling(tokenizer):
    same(pickle.loads(pickle.dumps(tokenizer)), tokenizer)
    assert pickle.loads(pickle.dumps(SentencePiece())).recipe() == SentencePiece().recipe()


def same(one: Tokenizer, other: Tokenizer) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.special == other.special
    assert one.recipe() == other.recipe()
    for text in HARD:
        assert one.encode(text) == other.encode(text)


def foreign(tmp_path: Path, **settings) -> SentencePiece:
    """A model that somebody else trained, with the library's own defaults where not told."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(corpus()), encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "m"),
        minloglevel=2,
        model_type="bpe",
        **settings,
    )
    return SentencePiece(model=str(tmp_path / "m.model"))


def test_llama_2s_kind_of_model_encodes_as_the_library_does(tmp_path):
    """A space in front of every text, byte fallback, no normalization, <unk>, <s> and </s>."""
    tokenizer = foreign(
        tmp_path,
        vocab_size=391,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    library = spm.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    for text in [*HARD, *fuzz(300), "the baker " * 2000]:
        assert tokenizer.encode(text) == library.encode(text)
        if "\u2581" not in text:
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.special == {"bos": 1, "eos": 2}
    with pytest.raises(ValueError, match="has no 'mask' token"):
        tokenizer.special_id("mask")


def test_a_model_without_byte_fallback_marks_what_it_does_not_know(tmp_path):
    tokenizer = foreign(tmp_path, vocab_size=150)
    assert tokenizer.decode(tokenizer.encode("the 漢 baker")) == "the \ufffd baker"


def test_a_symbol_that_can_be_typed_is_no_control_token(tmp_path):
    tokenizer = foreign(tmp_path, vocab_size=150, user_defined_symbols=["<user>"])
    assert "user" not in tokenizer.special
    assert tokenizer.decode(tokenizer.encode("a <user>")) == "a <user>"


def test_transformers_llama_tokenizer_and_our_reader_of_its_json_give_the_same_ids(bpe, tmp_path):
    """So that an exported model reads text as the trained one did."""
    bpe.save(tmp_path)
    llama = transformers.LlamaTokenizer.from_pretrained(
        tmp_path, legacy=False, add_prefix_space=False, split_special_tokens=True
    )
    (tmp_path / "tokenizer.json").write_text(llama.backend_tokenizer.to_str(), encoding="utf-8")
    ours = HuggingFace(str(tmp_path / "tokenizer.json"))
    assert ours.special == bpe.special
    for text in [text for text in [*HARD, *fuzz(3000)] if "\u2581" not in text]:
        ids = bpe.encode(text)
        assert llama.encode(text, add_special_tokens=False) == ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == text
    for id in range(bpe.vocab_size):
        assert ours.token_bytes(id) == bpe.token_bytes(id)
