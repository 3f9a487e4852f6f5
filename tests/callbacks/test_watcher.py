"""The watcher, beside a process that is no training run."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lit_llm.callbacks import watcher
from lit_llm.data.follow import DUMP_SIGNAL

# Starts a watcher with one second of patience and says which; then what a test adds.
PARENT = f"""
import faulthandler, os, subprocess, sys, time
faulthandler.register({DUMP_SIGNAL}, file=2)
command = [sys.executable, "-I", "-S", {watcher.__file__!r}]
arguments = [os.getpid(), 1.0, 3, {DUMP_SIGNAL}]
watcher = subprocess.Popen([*command, *map(str, arguments)], stdin=subprocess.PIPE)
beat = lambda: os.write(watcher.stdin.fileno(), b".")
print(watcher.pid, flush=True)
"""


@pytest.fixture
def start():
    started = []

    def start(script: str) -> tuple[subprocess.Popen, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()


def gone(pid: int) -> bool:
    return pid not in watcher.processes()


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_one_that_falls_silent_prints_where_it_is_and_is_killed(start):
    process, watched_by = start("def hangs():\n time.sleep(99)\nhangs()")
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert f"process 3 (pid {process.pid}) has finished no step" in err
    assert "for 0.0166667 minutes" in err  # 1 / 60
    assert "in hangs" in err
    assert "--ckpt_path last" in err
    wait_for(lambda: gone(watched_by))


def test_flags_which_may_hold_secrets_are_not_printed(monkeypatch, capsys):
    monkeypatch.setattr(watcher, "send", lambda *_: None)
    monkeypatch.setattr(watcher, "DUMP_SECONDS", 0)
    command = "python cli.py fit -c a.yaml --trainer.logger.key=hunter2"
    monkeypatch.setattr(watcher, "processes", lambda: {10: (1, command)})
    watcher.end(10, 0, 60.0, 0)
    err = capsys.readouterr().err
    assert "--- pid 10: python cli.py fit\n" in err
    assert "hunter2" not in err


def test_one_that_beats_lives_and_ends_as_it_wants(start):
    process, watched_by = start("for _ in range(30):\n beat()\n time.sleep(0.1)\nsys.exit(7)")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 7
    assert err == ""
    wait_for(lambda: gone(watched_by))


def test_what_it_started_is_ended_with_it_and_prints_its_stacks_too(start):
    process, _ = start(
        "def works():\n time.sleep(99)\n"
        "child = os.fork()\n"
        "if child == 0: works()\n"
        "print(child, flush=True)\n"
        "time.sleep(99)\n"
    )
    child = int(process.stdout.readline())
    _, err = process.communicate(timeout=30)
    assert f"--- pid {child}: " in err
    assert "in works" in err
    wait_for(lambda: gone(child))


def test_one_that_was_stopped_prints_where_and_is_killed(start):
    process, _ = start("def spins():\n print(1, flush=True)\n while True: beat()\nspins()")
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert "in spins" in err


def test_an_hour_in_which_the_watcher_was_stopped_itself_counts_as_three_ticks(monkeypatch):
    # As with Ctrl-Z and fg. Ticks of 1 s, patience of 10 s: 2 + 3 + 5, the hour after 2 ticks.
    clock, slept, ends = [0.0], [], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += 3600.0 if len(slept) == 3 else seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "set_blocking", lambda *_: None)
    monkeypatch.setattr(watcher, "heard", lambda: False)
    monkeypatch.setattr(watcher, "end", lambda *arguments: ends.append(arguments))
    watcher.main([str(os.getppid()), "10", "3", "12"])
    assert slept == [1.0] * 8
    assert ends == [(os.getppid(), 3, 10.0, 12)]


def test_copies_that_a_dead_process_leaves_behind_are_killed_and_nothing_else(start, monkeypatch):
    monkeypatch.setattr(watcher, "GRACE_SECONDS", 0.1)
    killed = []
    monkeypatch.setattr(watcher, "send", lambda pid, signum: killed.append(pid))
    known = {10: (1, "train"), 11: (10, "train"), 12: (10, "log"), 13: (10, "train")}
    there = {11: (1, "train"), 12: (1, "log"), 13: (1, "another that got this number")}
    monkeypatch.setattr(watcher, "processes", lambda: there)
    watcher.end_orphans(10, known)
    assert killed == [11]


def test_descendants_are_children_of_all_generations():
    #  1 -> 2 -> (3, 4 -> 5);  6 is another's
    everybody = {2: (1, ""), 3: (2, ""), 4: (2, ""), 5: (4, ""), 6: (7, ""), os.getpid(): (2, "")}
    assert sorted(watcher.descendants(2, everybody)) == [3, 4, 5]


def test_the_list_of_processes_has_this_one_by_proc_and_by_ps(monkeypatch):
    parent, command = watcher.processes()[os.getpid()]
    assert parent == os.getppid()
    assert "pytest" in command
    listing = " 1 0 /sbin/init\n 77 1 python cli.py fit -c a b\n"
    answer = subprocess.CompletedProcess([], 0, listing)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert watcher.from_ps() == {1: (0, "/sbin/init"), 77: (1, "python cli.py fit -c a b")}
