import os

import pytest

from lit_llm.data.join import join_shards
from lit_llm.data.shards import Shards, ShardWriter

PARTS = [[[1, 5, 2], [1, 2]], [], [[1, 7, 8, 9, 2], [1, 6, 2], [1, 2]]]


@pytest.fixture
def parts(tmp_path):
    folders = []
    for index, documents in enumerate(PARTS):
        folders.append(tmp_path / f"part{index}")
        with ShardWriter(
            folders[-1],
            vocab_size=10,
            tokenizer_fingerprint="abc",
            has_mask=True,
            shard_tokens=6,
        ) as writer:
            for document in documents:
                writer.append(document, [token > 5 for token in document])
    return folders


def test_the_whole_reads_like_the_parts_one_after_another(tmp_path, parts):
    join_shards(tmp_path / "all", parts)
    whole = Shards(tmp_path / "all")
    whole.verify()
    stream = [1, 5, 2, 1, 2, 1, 7, 8, 9, 2, 1, 6, 2, 1, 2]
    assert whole.tokens(0, 15).tolist() == stream
    assert whole.tokens(4, 11).tolist() == stream[4:11]
    assert whole.mask(0, 15).tolist() == [token > 5 for token in stream]
    assert whole.starts.tolist() == [0, 3, 5, 10, 13, 15]
    assert (whole.n_tokens, whole.n_documents) == (15, 5)


def test_the_parts_may_be_deleted_and_take_no_space_twice(tmp_path, parts):
    join_shards(tmp_path / "all", parts)
    assert (tmp_path / "all/00000-tokens.bin").samefile(parts[0] / "00000-tokens.bin")
    for part in parts:
        for path in part.iterdir():
            path.unlink()
    Shards(tmp_path / "all").verify()


def test_where_there_are_no_hard_links_files_are_copied(tmp_path, parts, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    join_shards(tmp_path / "all", parts)
    Shards(tmp_path / "all").verify()
