import os
from types import SimpleNamespace

import pytest
import torch

from lit_llm.callbacks import together
from lit_llm.callbacks.together import Together, lost_peer

GLOO = "[/torch/third_party/gloo/gloo/transport/tcp/"
LOST = [
    RuntimeError(f"{GLOO}pair.cc:553] Connection closed by peer [127.0.0.1]:55468. This is"),
    RuntimeError(f"{GLOO}pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer."),
    RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation"),
    RuntimeError("Gloo connectFullMesh failed with [gloo/pair.cc:152] timed out connecting"),
    torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network"),
    torch.distributed.DistStoreError("Timed out after 61 seconds waiting for clients. 1/2 joined."),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: str(error)[-30:])
def test_what_gloo_and_nccl_say_about_a_lost_process_is_understood(error):
    assert lost_peer(error)
    wrapped = ValueError("the save failed on every rank")
    wrapped.__cause__ = error
    assert lost_peer(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("DataLoader timed out after 5 seconds"),
        ValueError(f"{GLOO}pair.cc:553] Connection closed by peer"),
        torch.distributed.DistBackendError("Duplicate GPU detected : rank 0 and rank 1"),
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_a_lost_process(error):
    assert not lost_peer(error)


def trainer(**attributes) -> SimpleNamespace:
    first = attributes.pop("first", None)
    strategy = SimpleNamespace(broadcast=lambda mine: first, root_device=torch.device("cpu"))
    given = {"world_size": 2, "global_rank": 1, "loggers": [], "num_devices": 2, "num_nodes": 1}
    ckpt_path = attributes.pop("given_path", None)
    return SimpleNamespace(strategy=strategy, ckpt_path=ckpt_path, **{**given, **attributes})


def test_a_process_that_would_start_from_another_checkpoint_is_refused():
    with pytest.raises(ValueError, match="None, the first one from checkpoints/a/step-1: all node"):
        Together().setup(trainer(first="checkpoints/a/step-1"), None, "fit")
    Together().setup(trainer(first="None"), None, "fit")


def test_the_first_process_decides_between_checkpoints_that_all_see(tmp_path):
    """It alone has looked into their files; what is loaded is at its path."""
    mine = str(tmp_path / "step-00000009")
    Together().setup(trainer(first=str(tmp_path), given_path=mine), None, "fit")
    with pytest.raises(ValueError, match=r"step-00000009, the first one from .*gone"):
        Together().setup(trainer(first=str(tmp_path / "gone"), given_path=mine), None, "fit")
    with pytest.raises(ValueError, match="step-00000009, the first one from None"):
        Together().setup(trainer(first="None", given_path=mine), None, "fit")


@pytest.fixture
def exits(monkeypatch):
    """Codes with which the process would have ended."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(together.signal, "signal", lambda *_: None)
    return codes


def test_the_survivor_prints_its_stack_and_how_to_go_on_and_ends(exits, capsys):
    def in_the_middle_of_a_step():
        raise LOST[0]

    try:
        in_the_middle_of_a_step()
    except RuntimeError as error:
        Together().on_exception(trainer(), None, error)
    assert exits == [1]
    err = capsys.readouterr().err
    stack, _, hint = err.partition("process 1 stops: ")
    assert "in_the_middle_of_a_step" in stack
    assert "gone or stuck" in hint
    assert "--ckpt_path last" in hint


def test_errors_of_one_process_take_their_ordinary_way(exits, capsys):
    Together().on_exception(trainer(), None, RuntimeError("CUDA out of memory"))
    Together().on_exception(trainer(world_size=1), None, LOST[0])
    assert exits == []
    assert capsys.readouterr().err == ""
