from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from lit_llm.commands.restart import meet_afresh, name_of_attempt, rendezvous

N = 3
SOON = timedelta(seconds=20)


def attempt(store: HashStore, ranks=range(N)) -> list[str]:
    with ThreadPoolExecutor(N) as processes:
        names = [processes.submit(name_of_attempt, store, rank, N, SOON) for rank in ranks]
        return [name.result() for name in names]


def test_processes_of_an_attempt_agree_on_a_name_that_no_other_attempt_has():
    store = HashStore()
    first, second = attempt(store), attempt(store, ranks=[2, 1, 0])
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_words_that_dead_processes_left_behind_mislead_nobody():
    store = HashStore()
    store.set("word-1", "of-the-dead")  # it died before anybody answered
    assert len(set(attempt(store))) == 1


def test_the_first_process_does_not_wait_for_ever():
    with pytest.raises(RuntimeError, match="of 3 processes not all came"):
        name_of_attempt(HashStore(), 0, N, timedelta(seconds=0.1))


@pytest.mark.parametrize(
    ("environment", "replaced"),
    [
        ({}, False),
        ({"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "0"}, False),
        ({"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "2"}, True),
    ],
)
def test_only_a_torchrun_that_restarts_is_met_afresh(monkeypatch, environment, replaced):
    original = rendezvous._env_rendezvous_handler
    monkeypatch.setitem(rendezvous._rendezvous_handlers, "env", original)
    for name in ("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_MAX_RESTARTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meet_afresh()
    assert (rendezvous._rendezvous_handlers["env"] is not original) is replaced
