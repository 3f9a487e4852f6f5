import errno
import hashlib
import json
import os
import random
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from lit_llm.checkpoint import manifest
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.manifest import (
    MANIFEST,
    CheckpointError,
    LaterFormat,
    damage,
    entry,
    is_complete,
    listed,
    seal,
    sync_entries,
    verify,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three files of different sizes, one of them in a folder of its own."""
    target = tmp_path / "step-00000003"
    write_folder(target, _write)
    return target


def _write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(4099))
    (folder / "bundle.json").write_text('{"format": 1}')
    (folder / "inner").mkdir()
    (folder / "inner" / "tokenizer.model").write_bytes(b"abc")


def test_the_manifest_holds_the_sha256_of_every_file(folder):
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert list(files) == ["bundle.json", "inner/tokenizer.model", "model.safetensors"]
    assert files["inner/tokenizer.model"] == {
        "bytes": 3,
        # the SHA-256 of "abc" in FIPS 180-2, appendix B.1
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def test_an_untouched_folder_is_complete_and_valid(folder):
    verify(folder)
    assert is_complete(folder)


def test_each_of_200_flipped_bits_is_found_and_its_file_named(folder):
    """Of 200 each, torch.load and safetensors notice none."""
    draw = random.Random(2)
    names = ["model.safetensors", "bundle.json", "inner/tokenizer.model", MANIFEST]
    for _ in range(200):
        path = folder / draw.choice(names)
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=f"{path} is damaged"):
            verify(folder)
        path.write_bytes(original)
    verify(folder)


def test_no_byte_of_the_manifest_can_change(folder):
    path = folder / MANIFEST
    original = path.read_bytes()
    for position in range(len(original)):
        path.write_bytes(original[:position] + b"7x"[: 1 + position % 2] + original[position + 1 :])
        if path.read_bytes() != original:
            with pytest.raises(CheckpointError, match=MANIFEST):
                verify(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "inner/tokenizer.model"])
def test_a_cut_file_is_named_with_both_sizes(folder, name):
    path = folder / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_complete(folder)
    with pytest.raises(CheckpointError, match=rf"{name} .* {size - 1:,} bytes instead of {size:,}"):
        verify(folder)


def test_a_missing_file_is_named(folder):
    (folder / "bundle.json").unlink()
    assert not is_complete(folder)
    with pytest.raises(CheckpointError, match=r"bundle\.json is damaged: the file is missing"):
        verify(folder)


def test_a_file_of_another_checkpoint_is_found_though_its_size_agrees(folder, tmp_path):
    other = tmp_path / "step-00000007"
    write_folder(other, _write)
    (other / "model.safetensors").write_bytes(random.Random(9).randbytes(4099))
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    assert is_complete(folder)  # it looks at sizes only
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its SHA-256"):
        verify(folder)


def test_every_damaged_file_is_named(folder):
    (folder / "bundle.json").unlink()
    (folder / "model.safetensors").write_bytes(bytes(4099))
    with pytest.raises(CheckpointError, match=r"bundle\.json.*and also model\.safetensors"):
        verify(folder)


def test_a_folder_without_manifest_is_no_complete_checkpoint(folder):
    (folder / MANIFEST).unlink()
    assert not is_complete(folder)
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        verify(folder)


def test_a_file_that_is_not_listed_does_no_harm(folder):
    (folder / ".DS_Store").write_bytes(b"left by a file manager")
    verify(folder)


def test_a_thread_verifies_at_the_speed_of_sha256(tmp_path):
    """Measured in time of the processor, which does not depend on what else runs."""
    data = os.urandom(2**16) * 2**12  # 256 MB
    (tmp_path / "tensors").write_bytes(data)
    files = {"tensors": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}

    def seconds(work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    pairs = [
        (seconds(lambda: hashlib.sha256(data)), seconds(lambda: damage(tmp_path, files)))
        for _ in range(5)
    ]
    in_memory, in_file = map(min, zip(*pairs, strict=True))
    assert damage(tmp_path, files) == {}
    assert in_file <= 1.5 * in_memory, f"{in_file / in_memory:.2f} times SHA-256's own"


def test_what_others_have_hashed_is_not_read_again(tmp_path):
    """Nor need it be visible: another node's file may show up late."""
    (tmp_path / "mine").write_bytes(b"abc")
    (tmp_path / "seen").write_bytes(b"shard")
    seen = entry(tmp_path / "seen")
    (tmp_path / "seen").write_bytes(b"drahs")  # damaged after it was hashed
    seal(tmp_path, {"seen": seen, "unseen": {"bytes": 2, "sha256": "0" * 64}})
    assert list(listed(tmp_path)) == ["mine", "seen", "unseen"]
    assert list(damage(tmp_path, {"mine": listed(tmp_path)["mine"]})) == []
    with pytest.raises(CheckpointError, match=r"unseen is damaged.*missing \(and also seen\)"):
        verify(tmp_path)


def test_the_manifests_of_earlier_versions_are_read(folder):
    """They named no format, and their own hash was that of the files alone."""
    files = listed(folder)
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    text = json.dumps({"files": files, "sha256": own}, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text)
    verify(folder)
    (folder / MANIFEST).write_text(text.replace("3", "4", 1))
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is damaged"):
        verify(folder)


def test_a_later_format_is_refused_and_not_taken_for_damage(folder, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    seal(folder)
    verify(folder)
    monkeypatch.undo()
    with pytest.raises(LaterFormat, match="format 2, this lit-llm reads up to 1: install"):
        verify(folder)
    text = (folder / MANIFEST).read_text()
    assert '"format": 2' in text
    (folder / MANIFEST).write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is damaged"):  # a number that flipped
        verify(folder)


def test_a_file_that_the_disk_cannot_read_is_named(folder, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(manifest, "_sha256", fail)
    with pytest.raises(CheckpointError, match=r"bundle.json is damaged: it cannot be read: Input"):
        verify(folder)


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_syncs_no_folders_is_no_error(tmp_path, monkeypatch, number, passes):
    def fail(descriptor):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fail)
    with nullcontext() if passes else pytest.raises(OSError, match="no"):
        sync_entries(tmp_path)
