import importlib
import json
import os
import shutil
from pathlib import Path

import pytest

from lit_llm.data import corpus as sources
from lit_llm.data import scan as scan_module
from lit_llm.data import workers
from lit_llm.data.corpus import files
from lit_llm.data.prepare import open_prepared, prepare, prepare_all
from lit_llm.data.settings import OnBad, Preparation
from lit_llm.data.shards import Shards

TOKENIZER = '''
import hashlib, json
from lit_llm.tokenizer.base import SPECIAL, Tokenizer

class Bytes(Tokenizer):
    """Ids 0 to 7 are the control tokens, 8 + b is byte b; a recipe learns how much text it saw."""
    def __init__(self, shift=8, recipe=False, seen=None):
        self.shift, self.is_recipe, self.seen = shift, recipe, seen
    vocab_size = property(lambda self: self.shift + 256)
    special = property(lambda self: {name: i for i, name in enumerate(SPECIAL)})
    @property
    def fingerprint(self):
        return hashlib.sha256(repr((self.shift, self.seen)).encode()).hexdigest()
    trained = property(lambda self: not self.is_recipe)
    def encode(self, text):
        return [self.shift + b for b in text.encode()]
    def token_bytes(self, id):
        return bytes([id - self.shift]) if id >= self.shift else b""
    def save(self, folder):
        (folder / "bytes.json").write_text(json.dumps([self.shift, False, self.seen]))
    @classmethod
    def load(cls, folder):
        return cls(*json.loads((folder / "bytes.json").read_text()))
    def recipe(self):
        return {"shift": self.shift}
    def train(self, texts):
        return Bytes(self.shift, False, sorted(texts))
'''


@pytest.fixture
def bytes_class(tmp_path, monkeypatch):
    """A tokenizer in a file of its own, as a user's is, so that other processes find it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "bytes_tokenizer_of_test_prepare.py").write_text(TOKENIZER)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("bytes_tokenizer_of_test_prepare").Bytes


@pytest.fixture
def run(tmp_path, bytes_class):
    def run(corpus, tokenizer=None, **settings):
        settings = {"cache_dir": tmp_path / "cache", "val_fraction": 0.2, "workers": 0, **settings}
        return prepare(corpus, tokenizer or bytes_class(), progress=False, **settings)

    return run


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """Three files that are a unit each, with 60 different lines together."""
    monkeypatch.setattr(files, "SMALL_FILE", 1)
    (tmp_path / "text").mkdir()
    for index in range(3):
        write_lines(tmp_path, index, [f"file {index} line {i}" for i in range(20)])
    return sources.TextFiles(tmp_path / "text", document="line")


def write_lines(tmp_path, index, content):
    (tmp_path / "text" / f"{index}.txt").write_text("".join(f"{line}\n" for line in content))


def documents(folder, tokenizer):
    read = Shards(folder)
    borders = zip(read.starts[:-1], read.starts[1:], strict=True)
    return [read.tokens(start, stop).tolist() for start, stop in borders]


def texts(folder, tokenizer):
    return [tokenizer.decode(ids) for ids in documents(folder, tokenizer)]


def content(folder: Path):
    """Every file of a folder and its bytes."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_every_document_is_stored_once_in_order_between_bos_and_eos(run, lines):
    done = run(lines)
    train, val = texts(done.train, done.tokenizer), texts(done.val, done.tokenizer)
    every = [f"file {index} line {i}" for index in range(3) for i in range(20)]
    assert train == [text for text in every if text in train]
    assert val == [text for text in every if text not in train]
    assert 4 <= len(val) <= 22  # 12 on average
    bos, eos = done.tokenizer.special["bos"], done.tokenizer.special["eos"]
    for ids in documents(done.train, done.tokenizer):
        assert ids == [bos, *done.tokenizer.encode(done.tokenizer.decode(ids)), eos]
    assert Shards(done.train).tokenizer_fingerprint == done.tokenizer.fingerprint
    done.verify()


def test_any_number_of_workers_gives_the_same_bytes(run, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "ALONE_SECONDS", -1)
    one = run(lines)
    two = run(lines, workers=2, cache_dir=tmp_path / "other")
    assert content(two.folder) == content(one.folder)
    assert one.folder.name == two.folder.name


def test_asking_again_finds_it_by_content_wherever_the_files_are(run, lines, tmp_path):
    first = run(lines)
    assert first.work == {"scanned": 3, "encoded": 3}
    shutil.copytree(tmp_path / "text", tmp_path / "moved")
    again = run(sources.TextFiles(tmp_path / "moved", document="line"))
    assert again.work == {"scanned": 0, "encoded": 0}
    assert again.folder == first.folder
    assert again.card == first.card


def test_only_the_file_that_changed_is_redone(run, lines, tmp_path):
    first = run(lines)
    write_lines(tmp_path, 1, ["another first line", *[f"file 1 line {i}" for i in range(1, 20)]])
    second = run(lines)
    assert second.work == {"scanned": 1, "encoded": 1}
    assert second.folder != first.folder
    write_lines(tmp_path, 3, ["a new file"])
    assert run(lines).work == {"scanned": 1, "encoded": 1}
    fresh = run(lines, cache_dir=tmp_path / "fresh")
    assert content(run(lines).folder) == content(fresh.folder)


def test_another_setting_or_tokenizer_scans_nothing_again(run, lines, bytes_class):
    run(lines)
    assert run(lines, val_fraction=0.3).work == {"scanned": 0, "encoded": 3}
    assert run(lines, tokenizer=bytes_class(9)).work == {"scanned": 0, "encoded": 3}
    assert run(lines, split_seed=1).work == {"scanned": 0, "encoded": 3}


def test_a_touched_file_is_not_redone_and_a_changed_one_of_the_same_size_and_time_is(
    run, lines, tmp_path
):
    run(lines)
    path = tmp_path / "text" / "0.txt"
    os.utime(path, (1, 1))
    assert run(lines).work == {"scanned": 0, "encoded": 0}
    path.write_text(path.read_text().replace("line 7", "LINE 7"))
    os.utime(path, (1, 1))
    assert run(lines).work == {"scanned": 1, "encoded": 1}


def test_exact_duplicates_are_dropped_across_files_and_kept_when_asked(run, lines, tmp_path):
    write_lines(tmp_path, 1, ["same", "file 0 line 3", "same", "same "])
    done = run(lines)
    train, val = texts(done.train, done.tokenizer), texts(done.val, done.tokenizer)
    assert sorted(train + val).count("same") == 1
    assert sorted(train + val).count("file 0 line 3") == 1
    assert "same " in train + val
    assert done.card["duplicates_removed"] == 2
    kept = run(lines, deduplicate=False)
    assert kept.card["duplicates_removed"] == 0
    assert kept.card["train"]["documents"] + kept.card["val"]["documents"] == 44


def test_tails_hold_out_the_end_of_every_document(run, tmp_path):
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    done = run(sources.TextFiles(tmp_path / "a.txt"), val_split="tails", val_fraction=0.1)
    assert texts(done.train, done.tokenizer) == ["0123456789" * 9]
    assert texts(done.val, done.tokenizer) == ["0123456789"]


def test_without_validation_there_is_no_val_folder(run, lines):
    done = run(lines, val_fraction=0.0)
    assert done.val is None
    assert len(texts(done.train, done.tokenizer)) == 60
    assert sorted(path.name for path in done.folder.iterdir() if path.is_dir()) == [
        "tokenizer",
        "train",
    ]


def test_a_split_that_stays_empty_is_an_error_with_a_remedy(run, tmp_path):
    (tmp_path / "a.txt").write_text("one text")
    with pytest.raises(ValueError, match=r"no document for (train|val): 1 in all") as error:
        run(sources.TextFiles(tmp_path / "a.txt"))
    assert "val_split=tails" in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_files_that_are_all_empty_are_named(run, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jsonl").touch()
    with pytest.raises(ValueError, match=r"no text in .*\.jsonl.*: all is empty; check corpus"):
        run(sources.Jsonl(tmp_path))


def test_conversations_keep_the_mask_of_the_template(run, tmp_path):
    pairs = [{"prompt": f"ask {i}", "response": f"say {i}"} for i in range(30)]
    (tmp_path / "a.json").write_text(json.dumps(pairs))
    done = run(sources.Conversations(tmp_path / "a.json"))
    train = Shards(done.train)
    assert train.has_mask
    special = done.tokenizer.special
    start, stop = int(train.starts[2]), int(train.starts[3])
    ids, mask = train.tokens(start, stop), train.mask(start, stop)
    answer = done.tokenizer.decode(ids[mask])
    assert answer.startswith("say ")
    assert ids[mask][-1] == special["end"]
    assert ids[0] == special["bos"]
    assert done.tokenizer.decode(ids[~mask]) == answer.replace("say", "ask")
    assert done.card["conversations"] == 30
    assert done.card["train"]["trained"] == int(train.mask(0, train.n_tokens).sum())
    with pytest.raises(ValueError, match="val_split=tails would cut conversations apart"):
        run(sources.Conversations(tmp_path / "a.json"), val_split="tails")


@pytest.fixture
def jsonl(tmp_path):
    good = [f'{{"text": "good {i}"}}' for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join([*good[:4], '{"text": "cut', *good[4:], "[1]"]))
    return sources.Jsonl(tmp_path / "a.jsonl")


def test_bad_records_are_skipped_and_listed(run, jsonl):
    done = run(jsonl)
    assert done.card["train"]["documents"] + done.card["val"]["documents"] == 40
    assert done.card["bad"]["records"] == 2
    first, second = done.card["bad"]["listed"]
    assert first["source"] == "a.jsonl:5"
    assert first["reason"].startswith("broken JSON")
    assert second == {"source": "a.jsonl:42", "reason": "a list instead of an object"}
    listed = (done.folder / "bad.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in listed] == [first, second]
    assert "a.jsonl:42" in (done.folder / "card.md").read_text()


@pytest.mark.parametrize("prepared_before", [False, True])
def test_on_bad_error_stops_at_the_first_with_its_place(run, jsonl, prepared_before):
    if prepared_before:
        run(jsonl)
    with pytest.raises(ValueError, match=r"a\.jsonl:5: broken JSON") as error:
        run(jsonl, on_bad="error")
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("prepared_before", [False, True])
def test_too_many_bad_records_are_an_error_even_if_skipped(run, jsonl, prepared_before):
    if prepared_before:
        run(jsonl)
    with pytest.raises(ValueError, match=r"2 records \(4\.8%\) are bad, max_bad_share=0\.04") as e:
        run(jsonl, max_bad_share=0.04)
    assert "a.jsonl:5" in str(e.value)
    assert len(str(e.value).splitlines()) <= 3


def test_on_bad_error_reads_no_file_after_the_bad_one(run, lines, tmp_path, monkeypatch):
    (tmp_path / "text" / "1.txt").write_bytes(b"ok\n\xff\n")
    scanned = []
    real = scan_module.scan
    monkeypatch.setattr(
        "lit_llm.data.stages.scan", lambda job: (scanned.append(job.unit.name), real(job))
    )
    with pytest.raises(ValueError, match=r"1\.txt:2: invalid UTF-8"):
        run(lines, on_bad="error")
    assert scanned == ["0.txt", "1.txt"]


def test_a_recipe_is_trained_on_the_training_part_only(run, lines, bytes_class):
    done = run(lines, tokenizer=bytes_class(recipe=True))
    assert done.tokenizer.trained
    assert done.tokenizer.seen == sorted(texts(done.train, done.tokenizer))
    again = run(lines, tokenizer=bytes_class(recipe=True))
    assert again.work == {"scanned": 0, "encoded": 0}
    assert again.tokenizer.fingerprint == done.tokenizer.fingerprint
    assert open_prepared(done.folder).tokenizer.seen == done.tokenizer.seen


def test_a_recipe_does_not_see_held_out_tails(run, tmp_path, bytes_class):
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    done = run(
        sources.TextFiles(tmp_path / "a.txt"),
        tokenizer=bytes_class(recipe=True),
        val_split="tails",
        val_fraction=0.1,
    )
    assert done.tokenizer.seen == ["0123456789" * 9]


def test_several_corpora_share_one_trained_tokenizer(tmp_path, lines, bytes_class):
    (tmp_path / "b.txt").write_text("".join(f"other {i}\n" for i in range(20)))
    other = sources.TextFiles(tmp_path / "b.txt", document="line")
    one, two = prepare_all(
        [lines, other],
        bytes_class(recipe=True),
        Preparation(val_fraction=0.2),
        cache_dir=tmp_path / "cache",
        bad=OnBad(),
        workers=0,
        progress=False,
    )
    assert one.tokenizer.fingerprint == two.tokenizer.fingerprint
    both = texts(one.train, one.tokenizer) + texts(two.train, two.tokenizer)
    assert one.tokenizer.seen == sorted(both)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_any_damaged_file_of_a_preparation_is_named_before_it_is_used(run, lines, bytes_class):
    done = run(lines)
    names = {path.relative_to(done.folder).as_posix() for path in files_of(done.folder)}
    assert {"train/00000-tokens.bin", "val/starts.bin", "tokenizer/bytes.json"} <= names
    for path in files_of(done.folder):
        good = path.read_bytes()
        if not good:
            continue  # bad.jsonl: nothing to flip
        flip(path)
        with pytest.raises(ValueError, match=r"is damaged: delete .* and prepare again") as error:
            run(lines).verify()
        # Of the hashes in a manifest nobody knows whether they or the file are wrong.
        assert path.name == "manifest.json" or str(path) in str(error.value)
        if path.suffix != ".bin":
            with pytest.raises(ValueError, match="is damaged"):
                open_prepared(done.folder)
        path.write_bytes(good)
    assert done.verify() == sum(p.stat().st_size for p in files_of(done.folder) if "bin" in p.name)
    (done.train / "00000-tokens.bin").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"00000-tokens\.bin: 3 bytes, the manifest says"):
        run(lines)
    (done.folder / "tokenizer/bytes.json").unlink()
    with pytest.raises(ValueError, match=r"bytes\.json is missing"):
        run(lines)


def test_the_remedy_helps_although_prepared_and_encoded_tokens_are_the_same_files(run, lines):
    """Deleting what is damaged must not link the same damaged file again."""
    done = run(lines)
    whole = content(done.folder)
    tokens = done.train / "00001-tokens.bin"
    assert tokens.stat().st_nlink == 2
    with tokens.open("r+b") as handle:  # in place, as a disk does it
        handle.seek(5)
        handle.write(b"\xee")
    with pytest.raises(ValueError, match="is damaged") as error:
        done.verify()
    advice = str(error.value).split("delete ")[1].split(" and prepare")[0]
    shutil.rmtree(advice)
    again = run(lines)
    again.verify()
    assert content(again.folder) == whole
    assert again.work == {"scanned": 0, "encoded": 1}


def test_damaged_caches_of_units_are_made_again_when_they_are_needed(run, lines, bytes_class):
    recipe = bytes_class(recipe=True)
    done = run(lines, recipe)
    whole = content(done.folder)
    cache = done.folder.parents[1]
    stages = [path for name in ("scan", "encode", "tokenizer") for path in files_of(cache / name)]
    for path in [path for path in stages if path.stat().st_size]:
        shutil.rmtree(done.folder)
        flip(path)
        done = run(lines, recipe)
        done.verify()
        assert content(done.folder) == whole
        expected = path.relative_to(cache).parts[0].replace("tokenizer", "")
        assert done.work == {"scanned": expected == "scan", "encoded": expected == "encode"}
    assert not list(cache.glob("*/*.tmp-*"))


def test_equal_data_has_one_fingerprint_and_other_data_another(run, lines, tmp_path):
    one = run(lines).fingerprint
    assert len(one) == 64
    assert run(lines, cache_dir=tmp_path / "other").fingerprint == one
    assert run(lines, val_fraction=0.3).fingerprint != one


def test_a_cache_that_cannot_be_written_serves_what_is_prepared_and_says_so_of_more(
    run, lines, tmp_path
):
    first, lock = run(lines), tmp_path / "cache/.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # nobody can open it for writing, not even root
    before = content(tmp_path / "cache")
    assert run(lines).folder == first.folder
    with pytest.raises(ValueError, match=r"data\.cache_dir=.* cannot be written \(.+\): give"):
        run(lines, split_seed=1)
    assert content(tmp_path / "cache") == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        run(lines, cache_dir=tmp_path / "file/deeper")


def test_caches_of_units_may_be_deleted(run, lines, tmp_path):
    before = run(lines)
    for name in ("scan", "encode"):
        shutil.rmtree(tmp_path / "cache" / name)
    after = run(lines)
    assert after.work == {"scanned": 0, "encoded": 0}
    after.verify()
    assert after.card == before.card


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction=1.0 is no share"),
        ({"val_split": "middle"}, "val_split='middle': give documents or tails"),
        ({"on_bad": "warn"}, "on_bad='warn': give skip or error"),
        ({"max_bad_share": 2}, "max_bad_share=2 is no share"),
        ({"tokenizer_bytes": 0}, "tokenizer_bytes=0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(run, lines, settings, message):
    with pytest.raises(ValueError, match=message):
        run(lines, **settings)


def test_a_corpus_with_two_units_of_one_name_is_refused(run, lines):
    class Twice(sources.Corpus):
        def units(self):
            return lines.units()[:1] * 2

    with pytest.raises(ValueError, match=r"Twice\.units\(\) gave 2 units with 1 names"):
        run(Twice())
