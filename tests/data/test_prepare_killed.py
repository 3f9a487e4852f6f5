"""A preparation that dies at any moment goes on where it was; two at once do the work once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import hashlib, json, os, sys, time
from pathlib import Path
from lit_llm.data.corpus.base import Corpus, Text, Unit
from lit_llm.data.prepare import prepare
from lit_llm.tokenizer.base import SPECIAL, Tokenizer

class Bytes(Tokenizer):
    vocab_size = 264
    special = {name: i for i, name in enumerate(SPECIAL)}
    fingerprint = "bytes"
    def encode(self, text):
        time.sleep(float(os.environ["ENCODE"]))
        return [8 + b for b in text.encode()]
    def token_bytes(self, id):
        return b""
    def save(self, folder):
        pass
    @classmethod
    def load(cls, folder):
        return cls()

class Slow(Unit):
    def __init__(self, index):
        self.index, self.name = index, f"slow {index}"
    def fingerprint(self):
        return str(self.index)
    def read(self):
        if "PIDS" in os.environ:
            Path(os.environ["PIDS"], str(os.getpid())).touch()
        for i in range(4):
            time.sleep(float(os.environ["READ"]))
            yield Text(f"text {i} of unit {self.index % 5}, {i * self.index}", f"{self.index}:{i}")

class Slows(Corpus):
    def units(self):
        return [Slow(index) for index in range(6)]
"""
MAIN = """
import sys
from pathlib import Path
from slow_corpus import Bytes, Slows
from lit_llm.data import workers
from lit_llm.data.prepare import prepare

if __name__ == "__main__":
    workers.ALONE_SECONDS = -1
    done = prepare(
        Slows(), Bytes(), cache_dir=Path(sys.argv[1]), val_fraction=0.3,
        workers=int(sys.argv[2]), progress=False,
    )
    done.verify()
    print(done.folder, done.work["scanned"], done.work["encoded"])
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "slow_corpus.py").write_text(SCRIPT)
    (tmp_path / "main.py").write_text(MAIN)
    started = []

    def start(cache, workers=0, read=0.0, encode=0.0, **more):
        env = {**os.environ, "READ": str(read), "ENCODE": str(encode), **more}
        root = str(Path(__file__).parents[2])
        env["PYTHONPATH"] = os.pathsep.join([root, str(tmp_path)])
        command = [sys.executable, str(tmp_path / "main.py"), str(cache), str(workers)]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def result(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    folder, scanned, encoded = out.rsplit(maxsplit=2)
    return Path(folder), int(scanned), int(encoded)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_while_reading_and_while_encoding_it_ends_with_the_same_bytes(start, tmp_path):
    cache = tmp_path / "cache"

    def finished(stage):
        return [p for p in cache.glob(f"{stage}/*") if ".tmp-" not in p.name]

    process = start(cache, read=0.05)
    wait_for(lambda: len(finished("scan")) >= 2 and list(cache.glob("scan/*.tmp-*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    scanned_before = len(finished("scan"))
    assert 2 <= scanned_before < 6
    assert not (cache / "prepared").exists()

    process = start(cache, encode=0.05)
    wait_for(lambda: len(finished("encode")) >= 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    encoded_before = len(finished("encode"))
    assert 1 <= encoded_before < 6
    assert not (cache / "prepared").exists()
    assert len(finished("scan")) == 6

    folder, scanned, encoded = result(start(cache))
    assert (scanned, encoded) == (0, 6 - encoded_before)
    assert not list(cache.rglob("*.tmp-*"))
    assert json.loads((folder / "card.json").read_text())["train"]["documents"] > 0

    uninterrupted, scanned, encoded = result(start(tmp_path / "other"))
    assert (scanned, encoded) == (6, 6)
    assert content(folder) == content(uninterrupted)


def test_two_processes_that_prepare_the_same_at_once_do_it_once(start, tmp_path):
    both = [start(tmp_path / "cache", read=0.05) for _ in range(2)]
    (one, *work_one), (two, *work_two) = map(result, both)
    assert one == two
    assert sorted([work_one, work_two]) == [[0, 0], [6, 6]]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_worker_processes_end_with_a_parent_that_was_killed(start, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    process = start(tmp_path / "cache", workers=2, read=0.3, PIDS=str(pids))
    wait_for(lambda: any(path.name != str(process.pid) for path in pids.iterdir()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(Path("/proc", p.name).exists() for p in pids.iterdir()), 10)
