import json
import pickle

import numpy as np
import pytest

from lit_llm.data import shards
from lit_llm.data.shards import Shards, ShardWriter

DOCUMENTS = [[1, 10, 11, 2], [1, 2], [1, 20, 21, 22, 23, 24, 2], [1, 30, 2], [1, 299, 2]]
STREAM = [token for document in DOCUMENTS for token in document]


def write(folder, documents=DOCUMENTS, vocab_size=300, masks=None, shard_tokens=5):
    with ShardWriter(
        folder,
        vocab_size=vocab_size,
        tokenizer_fingerprint="abc",
        has_mask=masks is not None,
        shard_tokens=shard_tokens,
    ) as writer:
        for index, document in enumerate(documents):
            writer.append(document, masks[index] if masks else None)
    return folder


def test_any_slice_across_file_borders_equals_the_plain_list(tmp_path):
    read = Shards(write(tmp_path / "s"))
    assert len(list((tmp_path / "s").glob("*-tokens.bin"))) == 3  # 4 + 2, 7, 3 + 3 tokens
    for start in range(len(STREAM) + 1):
        for stop in range(start, len(STREAM) + 1):
            tokens = read.tokens(start, stop)
            assert tokens.dtype == np.int64
            assert tokens.tolist() == STREAM[start:stop]


def test_starts_are_the_documents_borders_and_counts_are_right(tmp_path):
    read = Shards(write(tmp_path / "s"))
    assert read.starts.tolist() == [0, 4, 6, 13, 16, 19]
    assert (read.n_tokens, read.n_documents, read.vocab_size) == (19, 5, 300)
    assert read.tokenizer_fingerprint == "abc"
    assert not read.has_mask


def test_the_mask_follows_its_tokens_and_is_all_true_where_none_was_given(tmp_path):
    masks = [[False, True, True, False], None, [False] * 6 + [True], None, [True, False, True]]
    read = Shards(write(tmp_path / "s", masks=masks))
    flat = [
        flag
        for document, mask in zip(DOCUMENTS, masks, strict=True)
        for flag in (mask or [True] * len(document))
    ]
    assert read.mask(0, 19).tolist() == flat
    assert read.mask(3, 15).tolist() == flat[3:15]
    assert read.mask(2, 3).dtype == bool


@pytest.mark.parametrize(("vocab_size", "bytes_each"), [(65_536, 2), (65_537, 4)])
def test_ids_take_two_bytes_up_to_65536_of_them(tmp_path, vocab_size, bytes_each):
    folder = write(tmp_path / "s", [[0, vocab_size - 1]], vocab_size)
    assert (folder / "00000-tokens.bin").stat().st_size == 2 * bytes_each
    assert Shards(folder).tokens(0, 2).tolist() == [0, vocab_size - 1]


def test_numbers_are_little_endian_on_the_disk(tmp_path):
    folder = write(tmp_path / "s", [[258]])
    assert (folder / "00000-tokens.bin").read_bytes() == bytes([2, 1])
    assert (folder / "starts.bin").read_bytes() == bytes(8) + bytes([1, 0, 0, 0, 0, 0, 0, 0])


def test_a_split_without_documents_can_be_read(tmp_path):
    read = Shards(write(tmp_path / "s", []))
    assert (read.n_tokens, read.n_documents) == (0, 0)
    assert read.tokens(0, 0).tolist() == []
    assert read.starts.tolist() == [0]


@pytest.mark.parametrize("wrong", [-1, 300])
def test_an_id_outside_the_vocabulary_is_refused_and_nothing_stays(tmp_path, wrong):
    with pytest.raises(ValueError, match=f"token id {wrong} in document 1 is outside"):
        write(tmp_path / "s", [[1, 2], [1, wrong, 2]])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_document_is_refused(tmp_path):
    with pytest.raises(ValueError, match="document 0 has no tokens"):
        write(tmp_path / "s", [[]])


def test_an_existing_folder_is_not_written_over(tmp_path):
    write(tmp_path / "s")
    with pytest.raises(ValueError, match="exists already"):
        write(tmp_path / "s")


def test_a_slice_outside_the_stream_is_an_error(tmp_path):
    read = Shards(write(tmp_path / "s"))
    for start, stop in [(-1, 3), (0, 20), (5, 4)]:
        with pytest.raises(IndexError):
            read.tokens(start, stop)


def test_a_file_cut_short_is_named_when_the_split_is_opened(tmp_path):
    folder = write(tmp_path / "s")
    (folder / "00001-tokens.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"00001-tokens\.bin: 4 bytes, the manifest says 14"):
        Shards(folder)
    (folder / "00001-tokens.bin").unlink()
    with pytest.raises(ValueError, match=r"00001-tokens\.bin: missing"):
        Shards(folder)


def test_verify_finds_one_flipped_bit(tmp_path):
    folder = write(tmp_path / "s")
    Shards(folder).verify()
    path = folder / "00002-tokens.bin"
    data = bytearray(path.read_bytes())
    data[3] ^= 16
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"00002-tokens\.bin: SHA-256 differs"):
        Shards(folder).verify()


def test_no_manifest_a_damaged_one_and_another_version_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="no shards in"):
        Shards(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        Shards(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99"):
        Shards(tmp_path)


def test_pickling_carries_the_path_and_no_data(tmp_path):
    read = Shards(write(tmp_path / "s"))
    data = pickle.dumps(read)
    assert len(data) < 500
    assert pickle.loads(data).tokens(0, 19).tolist() == STREAM


def test_more_files_than_may_be_open_at_once_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    read = Shards(write(tmp_path / "s", shard_tokens=1))
    assert len(list((tmp_path / "s").glob("*-tokens.bin"))) == 5
    assert read.tokens(0, 19).tolist() == STREAM
    assert read.tokens(0, 19).tolist() == STREAM
    assert len(read._open) == 2


@pytest.mark.parametrize(
    ("file", "dtype", "place", "value", "reason"),
    [
        ("starts.bin", "<i8", 2, 3, "a document ends before it begins"),  # 0 4 3 13 16 19
        ("starts.bin", "<i8", 0, 1, "the documents are not 19 tokens"),
        ("starts.bin", "<i8", 5, 20, "the documents are not 19 tokens"),
        ("00001-tokens.bin", "<u2", 6, 300, "token id 300 is outside the vocabulary of 300"),
    ],
)
def test_numbers_that_cannot_be_tokens_are_found(tmp_path, file, dtype, place, value, reason):
    folder = write(tmp_path / "s")
    Shards(folder).check()
    numbers = np.fromfile(folder / file, dtype)
    numbers[place] = value
    numbers.tofile(folder / file)
    with pytest.raises(ValueError, match=f"{file} holds no tokens: {reason}"):
        Shards(folder).check()


def test_a_manifest_whose_counts_are_not_its_files_is_refused(tmp_path):
    folder = write(tmp_path / "s")
    manifest = json.loads((folder / "manifest.json").read_text())
    for change in ({"n_documents": 6}, {"shards": [6, 7, 5]}, {"shards": [6, 7, 6, 0]}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ValueError, match="its counts are not its files'"):
            Shards(folder)


def test_all_tokens_are_read_piece_by_piece_across_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHECKED_AT_ONCE", 2)
    read = Shards(write(tmp_path / "s"))
    pieces = [piece.tolist() for piece in read.all_tokens()]
    assert max(map(len, pieces)) == 2
    assert [token for piece in pieces for token in piece] == STREAM
    assert not read._open  # nothing is mapped
