"""Row 7: a preparation that is killed goes on; what changed is redone, and nothing else."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from lit_llm.data.corpus import TextFiles
from lit_llm.data.prepare import prepare
from lit_llm.tokenizer import SentencePiece
from tests.torture.rows import row
from tests.torture.test_monsters import family

BIG, SMALL = 270_000, 10_000  # bytes: a unit of its own, and one of a group


def write_text(path: Path, size: int, seed: int) -> None:
    """Lines of invented words, none of which is there twice."""
    draw = random.Random(f"{path.name} {seed}")
    words = ["".join(draw.choices("aeioulnrstkmp", k=draw.randint(2, 9))) for _ in range(900)]
    lines, written = [], 0
    while written < size:
        lines.append(f"{path.stem} {len(lines)} " + " ".join(draw.choices(words, k=14)))
        written += len(lines[-1]) + 1
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("text")
    big = 8 if request.config.getoption("--torture") else 4  # with 8 some stages get workers
    for index in range(20):
        write_text(folder / f"{index:02d}.txt", BIG if index < big else SMALL, 0)
    return folder


def arguments(text: Path, cache: Path, *more: str) -> list[str]:
    return [
        *("prepare", "-c", "configs/data/text.yaml", f"--data.corpus.path={text}"),
        *("--data.corpus.document=line", "--data.val_split=documents"),
        *("--data.tokenizer.vocab_size=600", "--data.tokenizer_bytes=300000"),
        f"--data.cache_dir={cache}",
        *more,
    ]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a cache but its lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def uninterrupted(zygote, text, tmp_path_factory):
    """The cache of a preparation that nothing disturbed, and the seconds that its work took."""
    cache = tmp_path_factory.mktemp("uninterrupted") / "cache"
    running = zygote.launch(*arguments(text, cache, "--data.prepare_workers=0"))
    began = wait_for_work(running, cache)
    assert running.wait() == 0, running.err
    return tree(cache), time.monotonic() - began


def wait_for_work(running, cache: Path) -> float:
    while running.alive() and not cache.exists():
        time.sleep(0.002)
    return time.monotonic()


@row(7)
def test_a_killed_preparation_ends_with_the_bytes_of_an_undisturbed_one(
    trials, draw, launch, text, uninterrupted, tmp_path
):
    expected, seconds = uninterrupted
    for trial in trials(full=20, fast=1):
        with trial:
            cache = tmp_path / str(trial.number)
            command = arguments(text, cache, f"--data.prepare_workers={draw.choice((0, 2))}")
            kills = 0
            while not kills or draw.random() < 0.2:
                if killed(launch(*command), cache, draw.uniform(0, seconds)):
                    kills += 1
                else:  # it was faster than the undisturbed one
                    shutil.rmtree(cache)
            finished = launch(*command)
            assert finished.wait() == 0, finished.err
            assert tree(cache) == expected
            shutil.rmtree(cache)


def killed(running, cache: Path, seconds: float) -> bool:
    """Kill it so long after its work began; whether that was before its end."""
    moment = wait_for_work(running, cache) + seconds
    while running.alive() and time.monotonic() < moment:
        time.sleep(0.002)
    below = family(running.pid)[1:]
    running.send(signal.SIGKILL)
    code = running.wait()
    assert code in (-signal.SIGKILL, 0), running.err
    wait_until_gone(below)
    return code != 0


def wait_until_gone(pids: list[int]) -> None:
    """Workers follow the process that started them."""
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, f"{pids}: a worker outlives its parent"
        time.sleep(0.01)


@row(7)
@pytest.mark.parametrize("change", ["one file changed", "one file added"])
def test_only_what_changed_is_redone_and_equals_a_fresh_preparation(
    trials, draw, text, tmp_path, change
):
    for trial in trials(full=1, fast=1):
        with trial:
            mine = shutil.copytree(text, tmp_path / "mine")
            recipe = SentencePiece(vocab_size=600)
            tokenizer = prepared(mine, tmp_path / "cache", recipe).tokenizer
            before = prepared(mine, tmp_path / "cache", tokenizer)
            assert before.work == {"scanned": 0, "encoded": 0}
            files = tree(tmp_path / "cache")
            name = "new" if change == "one file added" else f"{draw.randrange(4):02d}"
            write_text(mine / f"{name}.txt", BIG, draw.randrange(1, 10**9))
            after = prepared(mine, tmp_path / "cache", tokenizer)
            assert after.work == {"scanned": 1, "encoded": 1}
            assert tree(tmp_path / "cache").items() >= files.items()
            fresh = prepared(mine, tmp_path / "fresh", tokenizer)
            assert tree(fresh.folder) == tree(after.folder) != tree(before.folder)
            assert fresh.folder.name == after.folder.name != before.folder.name


def prepared(text: Path, cache: Path, tokenizer: SentencePiece):
    corpus = TextFiles(text, document="line")
    return prepare(corpus, tokenizer, cache_dir=cache, workers=0, progress=False)
