import os
import subprocess
from pathlib import Path

import pytest
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from lit_llm.model import native
from lit_llm.model.native import cache_folder

compiled_library = native.compiled_library.__wrapped__  # each test compiles for itself


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text('extern "C" int answer() { return 42; }')
    return path


@pytest.fixture
def folder(monkeypatch, tmp_path, source) -> Path:
    """An empty one for what is compiled."""
    folder = tmp_path / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    trial = tmp_path / "trial.cpp"
    trial.write_text("")
    if compiled_library(trial) is None:
        pytest.skip("no compiler here makes a library")
    for path in folder.iterdir():
        path.unlink()
    return folder


def test_what_is_compiled_can_be_called(source, folder):
    assert compiled_library(source).answer() == 42


def test_without_a_compiler_there_is_no_library(monkeypatch, tmp_path, source):
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert compiled_library(source) is None


def test_what_does_not_compile_is_no_library(folder, source):
    source.write_text("no C++")
    assert compiled_library(source) is None


def test_a_compiled_library_is_found_again(monkeypatch, folder, source):
    assert compiled_library(source) is not None
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert compiled_library(source) is not None


@pytest.fixture
def made(folder, monkeypatch) -> list[Path]:
    """What would be compiled; nothing is."""
    made = []
    monkeypatch.setattr(native, "_compiled", lambda compiler, source, path: made.append(path))
    return made


def test_another_text_or_compiler_is_another_library(made, source, monkeypatch):
    compiled_library(source)
    monkeypatch.setenv("CXX", "c++")
    compiled_library(source)
    source.write_text('extern "C" int answer() { return 43; }')
    compiled_library(source)
    assert len(set(made)) == 3


def test_a_damaged_library_is_made_anew(made, source):
    compiled_library(source)
    made[0].write_bytes(b"")
    compiled_library(source)
    assert made == [made[0]] * 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows knows no such owners")
def test_a_library_that_others_may_have_put_there_is_not_loaded(made, folder, source, monkeypatch):
    compiled_library(source)
    made[0].write_bytes(b"theirs")
    monkeypatch.setattr(native.ctypes, "CDLL", lambda path: pytest.fail(f"loaded {path}"))
    folder.chmod(0o777)
    compiled_library(source)
    folder.chmod(0o700)
    real = os.stat_result
    monkeypatch.setattr(
        Path, "stat", lambda path: real([0o40700, 0, 0, 1, os.getuid() + 1, *[0] * 5])
    )
    compiled_library(source)
    assert made[0].parent == folder
    assert folder not in (made[1].parent, made[2].parent)


@pytest.mark.parametrize("line", ["flags\t\t: fpu {}", "CPU part\t: {}", "Features\t: fp {}"])
def test_a_library_is_one_processors_own(line, monkeypatch):
    monkeypatch.setattr(native.sys, "platform", "linux")
    described = []
    for name in ("0xd0c", "0xd40"):
        text = f"processor\t: 0\n{line.format(name)}\n"
        monkeypatch.setattr(Path, "read_text", lambda *_, text=text, **__: text)
        described.append(native._processor())
    assert described[0] != described[1]


def test_the_folder_is_torch_inductors(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert str(cache_folder()) == default_cache_dir()


def test_a_user_without_a_name_has_a_folder(monkeypatch):
    def nameless() -> str:
        raise KeyError("uid not found: 1234")

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(native.getpass, "getuser", nameless)
    assert str(cache_folder()) == default_cache_dir()


def test_a_library_without_tiles_is_not_asked_for_them(source, folder):
    assert native.tiles_of(None) is None
    assert native.tiles_of(compiled_library(source)) is None


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_library_with_tiles_asks_the_system(source, folder, allowed):
    source.write_text(f'extern "C" int may_use_tiles() {{ return {allowed}; }}')
    assert native.tiles_of(compiled_library(source)) is bool(allowed)


def test_a_header_may_be_included(source, folder):
    source.write_text('#include "numbers.h"\nextern "C" int two() { return int(wide(2.5f)); }')
    assert compiled_library(source).two() == 2
