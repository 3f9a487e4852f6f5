import json

import numpy as np
import pytest

from lit_llm.data import sealed
from lit_llm.data.sealed import MANIFEST, damaged, seal, sha256
from lit_llm.data.shards import ShardWriter


@pytest.fixture
def folder(tmp_path):
    """Two files, one of them empty, and a split of two token files."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below/a.txt").write_bytes(b"abc")
    (tmp_path / "empty").touch()
    split = ShardWriter(
        tmp_path / "train", vocab_size=300, tokenizer_fingerprint="x", shard_tokens=4
    )
    with split as writer:
        for document in ([1, 2, 3, 4], [5, 6]):
            writer.append(np.array(document))
    seal(tmp_path)
    return tmp_path


def test_the_manifest_has_the_hash_of_every_file_but_those_that_a_split_has_hashed(folder):
    names = ["below/a.txt", "empty", "train/manifest.json"]
    found = json.loads((folder / MANIFEST).read_text())
    assert list(found) == names
    # FIPS 180-2 gives these for "abc" and for nothing
    assert found["below/a.txt"].startswith("ba7816bf8f01cfea414140de5dae2223")
    assert found["empty"].startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert found["below/a.txt"] == sha256(folder / "below/a.txt")


@pytest.mark.parametrize("threads", [1, 3])
def test_every_bit_of_every_file_is_watched(folder, threads, monkeypatch):
    monkeypatch.setattr(sealed, "THREADED_BYTES", 0)
    assert damaged(folder, threads=threads) is None
    for path in [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]:
        good = path.read_bytes()
        for bit in range(0, 8 * len(good), 61):
            data = bytearray(good)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            found = damaged(folder, threads=threads)
            assert found is not None
            assert found == path or path == folder / MANIFEST
        path.write_bytes(good[:-1])
        assert damaged(folder, threads=threads) is not None
        path.unlink()
        assert damaged(folder, threads=threads) == path
        path.write_bytes(good)
    assert damaged(folder, threads=threads) is None


def test_two_token_files_that_changed_places_are_found(folder):
    one, two = (folder / f"train/0000{number}-tokens.bin" for number in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert damaged(folder) == one
    assert damaged(folder, tokens=False) is None


def test_a_folder_without_a_manifest_is_damaged(tmp_path):
    assert damaged(tmp_path) == tmp_path / MANIFEST
    (tmp_path / MANIFEST).write_text("[]")
    assert damaged(tmp_path) == tmp_path / MANIFEST
