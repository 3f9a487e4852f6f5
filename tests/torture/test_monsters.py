"""Row 9: inputs that are no text, and how little memory and time it takes to say so."""

import time
from pathlib import Path

from tests.torture.rows import row

MEGABYTE = 2**20
GIGABYTE = 10**9
WHOLE = {"line": 256, "nul": 256, "empty": 10_000}  # megabytes, megabytes, files
SMALLER = {"line": 70, "nul": 70, "empty": 1_000}  # over the same limits: 64 MiB, several groups


def a_huge_line(folder: Path, sizes) -> None:
    with (folder / "a.jsonl").open("wb") as file:
        file.writelines(b'{"text": "good line %d"}\n' % i for i in range(300))
        file.write(b'{"text": "')
        for _ in range(sizes["line"]):
            file.write(b"x" * MEGABYTE)
        file.write(b'"}\n{"text": "and after it"}\n')


def empty_files(folder: Path, sizes) -> None:
    for i in range(sizes["empty"]):
        (folder / f"{i}.jsonl").touch()


def zeros(folder: Path, sizes) -> None:
    with (folder / "disk.jsonl").open("wb") as file:
        for _ in range(sizes["nul"]):
            file.write(bytes(MEGABYTE))


def nothing_readable(folder: Path, sizes) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n")
    (folder / "gone.jsonl").symlink_to(folder / "nowhere.jsonl")
    (folder / "folder.jsonl").mkdir()


CASES = (
    (a_huge_line, 0, r"`a.jsonl:301`: over the limit of 67,108,864 bytes for a document"),
    (empty_files, 2, "all is empty; check corpus.path and glob"),
    (zeros, 2, "disk.jsonl:1: NUL bytes (a binary file, or UTF-16?), over the limit of 67,108,864"),
    (nothing_readable, 2, "matches '**/*.jsonl': give corpus.glob, such as '**/*.md'"),
)


@row(9)
def test_monsters_are_refused_in_a_gigabyte_and_a_minute(trials, launch, tmp_path, request):
    sizes = WHOLE if request.config.getoption("--torture") else SMALLER
    for trial in trials(full=4, fast=2):
        make, code, message = CASES[trial.number]
        folder = tmp_path / str(trial.number)
        folder.mkdir()
        make(folder, sizes)
        with trial:
            start = time.monotonic()
            prepare = launch(
                *("prepare", "-c", "configs/data/jsonl.yaml", f"--data.corpus.path={folder}"),
                *(f"--data.cache_dir={folder / 'cache'}", "--data.tokenizer.vocab_size=300"),
                *("--data.val_fraction=0.1", "--data.prepare_workers=2"),
            )
            peak = peak_memory(prepare)
            assert prepare.wait() == code, prepare.err
            assert time.monotonic() - start < 60
            assert 50 * MEGABYTE < peak < GIGABYTE
            said = prepare.err if code else prepare.out
            assert message in said
            assert "Traceback" not in prepare.err
            assert code == 0 or len(said[said.index("error: ") :].splitlines()) <= 3


def peak_memory(running) -> int:
    """Most bytes that the process and those below it had at one time, and never less than that."""
    highest = 0
    while running.alive():
        highest = max(highest, sum(map(resident, family(running.pid))))
        time.sleep(0.02)
    return highest


def family(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        below = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return [pid]
    return [pid, *(each for child in below for each in family(child))]


def resident(pid: int) -> int:
    """The most that one process ever had."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
