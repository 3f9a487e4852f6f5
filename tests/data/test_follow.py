import multiprocessing
import os
import signal
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from lit_llm.data.follow import DUMP_SIGNAL, follow_parent


class Pids(Dataset):
    """An item is the worker that made it; item 1 takes forever."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        while index == 1:
            time.sleep(0.1)
        return os.getpid()


def loader() -> DataLoader:
    return DataLoader(Pids(), num_workers=1, prefetch_factor=1, worker_init_fn=follow_parent)


@pytest.fixture
def worker():
    """The process of a worker that is busy."""
    batches = iter(loader())
    yield int(next(batches))
    batches._shutdown_workers()


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def tell(pid: int, signum: int) -> None:
    """Send a signal from a process that is not the worker's parent."""
    child = os.fork()
    if child == 0:
        os.kill(pid, signum)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1", "SIGTERM"])
def test_a_signal_to_the_group_does_not_end_a_worker(worker, name):
    tell(worker, getattr(signal, name))
    time.sleep(0.2)
    assert alive(worker)


def test_its_parent_ends_a_worker_that_is_busy(worker):
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: not alive(worker))


def test_a_worker_that_is_busy_ends_with_its_parent():
    reader, writer = os.pipe()

    def train() -> None:
        batches = iter(loader())
        os.write(writer, str(int(next(batches))).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    multiprocessing.get_context("fork").Process(target=train).start()
    worker = int(os.read(reader, 99))
    wait_for(lambda: not alive(worker))


@pytest.fixture
def errors(tmp_path):
    """The file that standard error goes to, that of new processes too."""
    path, before = tmp_path / "errors", os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    yield path
    os.dup2(before, 2)
    os.close(before)


def test_a_worker_prints_its_stacks_when_asked(errors, worker):
    def printed() -> bool:
        os.kill(worker, DUMP_SIGNAL)  # again, for the worker may not have begun its item
        return "in __getitem__" in errors.read_text()

    wait_for(printed)
    assert alive(worker)
