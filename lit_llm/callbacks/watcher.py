"""A small process that listens to a training process, and ends it when it falls silent.

    python -I -S watcher.py PID SECONDS RANK SIGNAL < beats

It is a process of its own because one that hangs cannot help itself: it may hold the interpreter's
lock, wait inside a driver, or be stopped (SIGSTOP). For the same reason it imports nothing that
is slow or large. It reads what the training process writes to a pipe whenever it gets on. After
SECONDS without anything it has that process and all that it started print the stacks of their
threads (SIGNAL), and kills them. It ends with the training process, and then kills the copies of it
(ranks, workers of a loader) that are left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

TICK_SECONDS = 1.0
FAMILY_SECONDS = 5.0  # between two looks at the processes that the training process started
GRACE_SECONDS = 5.0  # for what is left behind by a training process to end by itself
DUMP_SECONDS = 4.0  # for all processes together to print their stacks

Table = dict[int, tuple[int, str]]
"""Process: (its parent, its command line)."""


def main(arguments: list[str]) -> None:
    """Watch until the training process is gone or has to go."""
    parent, seconds, rank, dump = int(arguments[0]), float(arguments[1]), *map(int, arguments[2:])
    os.set_blocking(0, False)
    silent = looked = 0.0
    known: Table = {}
    tick = min(TICK_SECONDS, seconds / 10)
    before = time.monotonic()
    while os.getppid() == parent:
        time.sleep(tick)
        now = time.monotonic()
        # This process is stopped and continued with the other one by Ctrl-Z and fg: the hour
        # between counts as three ticks.
        silent += min(now - before, 3 * tick)
        if heard():
            silent = 0.0
        if silent >= seconds:
            end(parent, rank, seconds, dump)
            return
        if now - looked > FAMILY_SECONDS:
            looked, everybody = now, processes()
            if parent in everybody:
                known = {pid: everybody[pid] for pid in (parent, *descendants(parent, everybody))}
        before = now
    end_orphans(parent, known)


def heard() -> bool:
    """Whether anything has come through the pipe, of which all is taken."""
    with contextlib.suppress(BlockingIOError):
        return bool(os.read(0, 1 << 16))
    return False


def end(parent: int, rank: int, seconds: float, dump: int) -> None:
    """Have a process and its descendants print their stacks, then kill them."""
    everybody = processes()
    family = [parent, *descendants(parent, everybody)]
    say(
        f"watchdog: process {rank} (pid {parent}) has finished no step, validation batch or save "
        f"for {seconds / 60:g} minutes: it ends here.\nThe stacks of all its threads, and of the "
        "processes that it started:"
    )
    for pid in family:
        command = everybody[pid][1] if pid in everybody else ""
        if f"-I -S {__file__} " in command:  # that of another rank, which this one has started
            continue
        say(f"\n--- pid {pid}: {' '.join(command.split()[:3])}")  # flags may hold secrets
        # First it goes on: a signal that a stopped process finds waiting is taken by any of its
        # threads, and the others' stacks then change while they are printed.
        send(pid, signal.SIGCONT)
        send(pid, dump)
        time.sleep(min(1.5, DUMP_SECONDS / len(family)))
    say(
        f"\nwatchdog: process {rank} (pid {parent}) is killed, see above where it was.\n"
        "The run can go on from its last checkpoint: start it again with --ckpt_path last"
    )
    for pid in dict.fromkeys([*family, *descendants(parent, processes())]):
        send(pid, signal.SIGKILL)


def end_orphans(parent: int, known: Table) -> None:
    """Kill the copies of a training process that has ended, if they do not end by themselves."""
    copies = {pid: command for pid, (_, command) in known.items() if command == known[parent][1]}
    copies.pop(parent, None)
    until = time.monotonic() + GRACE_SECONDS
    while copies:
        there = processes()
        copies = {
            pid: command
            for pid, command in copies.items()
            if pid in there and there[pid][1] == command  # and not a new one of that number
        }
        if time.monotonic() > until:
            for pid in copies:
                send(pid, signal.SIGKILL)
            return
        time.sleep(0.2)


def descendants(parent: int, everybody: Table) -> list[int]:
    """The processes that a process started, and those that they started; this one not."""
    found: list[int] = []
    generation = [parent]
    while generation:
        children = [pid for pid, (ppid, _) in everybody.items() if ppid in generation]
        generation = [pid for pid in children if pid not in (os.getpid(), parent, *found)]
        found += generation
    return found


def processes() -> Table:
    """All processes of the machine that are alive."""
    if not os.path.exists("/proc/self/stat"):  # macOS
        return from_ps()
    table: Table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it is gone by now
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    state, ppid = file.read().rpartition(")")[2].split()[:2]
                with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                    command = " ".join(file.read().split("\0")).strip()
                if state not in "ZX":
                    table[int(name)] = int(ppid), command
    return table


def from_ps() -> Table:
    """The same from the program ps."""
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,ppid=,command="], capture_output=True, text=True
    )
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    return {int(pid): (int(ppid), command) for pid, ppid, command in rows}


def send(pid: int, signum: int) -> None:
    """Send a signal to a process, unless it is gone or another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def say(text: str) -> None:
    """Print to standard error, which may be closed or a terminal that is gone."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
