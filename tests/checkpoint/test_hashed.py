import hashlib
import io
import os
from types import SimpleNamespace

import pytest
import torch

from lit_llm.checkpoint.hashed import HashedFile, write_bytes


def test_the_entry_is_what_a_second_read_would_find(tmp_path):
    tensors = {"a": torch.arange(300_000), "b": [torch.ones(3), 0.5]}
    with HashedFile(tmp_path / "file") as file:
        file.write(b"before")
        torch.save(tensors, file)
        file.write(memoryview(torch.arange(5, dtype=torch.int16).numpy()))  # 10 bytes, 5 items
    content = (tmp_path / "file").read_bytes()
    assert file.entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert torch.load(io.BytesIO(content[6:-10]), weights_only=True)["b"][1] == 0.5


def test_the_sha256_of_abc_is_that_of_the_standard(tmp_path):
    entry = write_bytes(tmp_path / "abc", b"abc")  # FIPS 180-2, appendix B.1
    assert entry["bytes"] == 3
    assert entry["sha256"].startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9c")


def test_a_file_is_on_the_disk_when_its_block_ends(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    write_bytes(tmp_path / "file", b"twelve bytes")
    assert synced == [12]  # all of it had left the process before


def test_a_file_whose_writing_failed_is_closed_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("synced"))
    file = HashedFile(tmp_path / "file")
    with pytest.raises(RuntimeError, match="no"), file:
        raise RuntimeError("no")
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")


def test_what_the_disk_says_is_not_lost_in_torch_save(tmp_path, monkeypatch):
    """torch.save tells of its own surprise instead: "unexpected pos 800832 vs 800784"."""
    file = HashedFile(tmp_path / "file")
    real = file._file.write

    def fill_up(data):
        if file._bytes + len(data) > 1000:
            raise OSError(28, "No space left on device")
        return real(data)

    monkeypatch.setattr(file, "_file", SimpleNamespace(write=fill_up, close=file._file.close))
    with pytest.raises(OSError, match="No space left"), file:
        torch.save([torch.ones(300), torch.ones(3)], file)
