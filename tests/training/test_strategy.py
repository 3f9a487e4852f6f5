import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.training.strategy import Sharded

SCRIPT = Path(__file__).with_name("ranks.py")

# One launch for all fast cases: starting processes takes longer than training in them.
TWO = ("ddp", "fsdp", "fsdp@4", "fsdp+each", "tp+clip-value", "fsdp+muon", "tp", "tp+clip")
TWO += ("tp+tied", "tp+chunks", "tp+checkpointing", "tp+bf16-params", "fsdp+muon-skip")
TWO += ("ddp+lora", "fsdp+lora", "tp+lora", "tp+lora-tied", "fsdp+lora-bf16-mixed")
TWO_SLOW = ("ddp+clip", "fsdp+clip", "fsdp+tied", "fsdp+chunks", "fsdp+checkpointing")
TWO_SLOW += ("fsdp+compiled", "tp+muon", "fsdp+clip-value", "tp+own-part")
TWO_SLOW += ("fsdp+own-part", "tp@4", "fsdp+bf16-mixed", "fsdp+bf16-true", "fsdp+bf16-params")
TWO_SLOW += ("fsdp+compiled-checkpointing", "fsdp+adamw-skip", "tp+adamw-skip", "tp+muon-skip")
TWO_SLOW += ("tp+bf16-mixed", "tp+bf16-true", "ddp+bf16-mixed")
TWO_SLOW += ("fsdp+lora-clip", "tp+lora-clip", "fsdp+lora-tied", "fsdp+lora-muon", "tp+lora-muon")
TWO_SLOW += ("fsdp+lora-checkpointing", "tp+lora-checkpointing", "fsdp+lora-compiled")
TWO_SLOW += ("tp+lora-bf16-mixed",)
FOUR = ("2d", "hsdp", "fsdp", "2d@4", "2d+clip", "2d+clip-value", "2d+tied", "2d+muon")
FOUR += (
    "2d+adamw-skip",
    "2d+muon-skip",
    "2d+checkpointing",
    "2d+own-part",
    "2d+bf16-params",
    "hsdp+clip",
    "hsdp+compiled",
    "2d+lora",
    "2d+lora-tied",
    "hsdp+lora",
)
EIGHT = ("3d", "3d+clip")
ROUNDED = "bf16"


@pytest.fixture(scope="module")
def single():
    """Runs a variant in this process, once."""
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["ranks"] = ranks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ranks)
    found = {}

    def single(variant: str) -> dict:
        if variant not in found:
            found[variant] = ranks.train(f"single+{variant}" if variant else "single")
        return found[variant]

    return single


def launch(processes: int, folder: Path, cases: tuple[str, ...]) -> dict[str, dict]:
    results = folder / "results.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(SCRIPT), str(results), *cases]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return torch.load(results)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(2, tmp_path_factory.mktemp("two"), TWO)


@pytest.fixture(scope="module")
def two_slow(tmp_path_factory):
    return launch(2, tmp_path_factory.mktemp("two_slow"), TWO_SLOW)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    return launch(8, tmp_path_factory.mktemp("eight"), EIGHT)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return launch(4, tmp_path_factory.mktemp("four"), FOUR)


def assert_equal_training(found: dict, expected: dict) -> None:
    assert found["gradient"].keys() == expected["gradient"].keys()
    assert all(torch.equal(found["before"][n], expected["before"][n]) for n in found["before"])
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert found["grad_norms"] == pytest.approx(expected["grad_norms"], rel=1e-4)
    gradient, other = (flat(run["gradient"]) for run in (expected, found))
    after_one_step = len(expected["losses"]) == 1
    assert (other - gradient).norm() / gradient.norm() < (1e-6 if after_one_step else 1e-4)


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def assert_near_training(found: dict, rounded: dict, exact: dict) -> None:
    """Not further from float32 than twice the way that one process goes with this precision."""
    truth = flat(exact["gradient"])
    own, away = ((flat(run["gradient"]) - truth).norm() for run in (rounded, found))
    assert 0 < away <= 2 * own


def check(case: str, results: dict, single) -> None:
    variant = case.partition("@")[0].partition("+")[2]
    assert bool(results[case]["graphs"]) == ("compiled" in variant)
    if ROUNDED in variant:
        # bf16-params: one process knows no such thing; activations are rounded as in bf16-true
        same = variant.replace("bf16-params", "bf16-true")
        exact = "lora-clip" if "lora" in variant else ""  # clipped alike: of one direction
        assert_near_training(results[case], single(same), single(exact))
    else:
        assert_equal_training(results[case], single(variant.replace("each", "")))


@pytest.mark.parametrize("case", TWO)
def test_two_processes_train_as_one(case, two, single):
    check(case, two, single)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first one waits for all, and two are compiled
@pytest.mark.parametrize("case", TWO_SLOW)
def test_two_processes_train_as_one_in_other_ways_too(case, two_slow, single):
    check(case, two_slow, single)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", FOUR)
def test_four_processes_train_as_one(case, four, single):
    check(case, four, single)


@pytest.mark.slow
@pytest.mark.parametrize("case", EIGHT)
def test_eight_processes_as_replicate_shard_and_tensor_train_as_one(case, eight, single):
    check(case, eight, single)


def test_gradients_are_reduced_once_a_step_however_many_micro_batches(two):
    # two blocks and the rest of the network: three reductions
    assert two["fsdp"]["reductions"] == 3
    assert two["fsdp@4"]["reductions"] == 3
    assert two["fsdp+each"]["reductions"] == 2 * 3  # asked for: at each of two micro-batches


@pytest.mark.parametrize("case", ["ddp", "fsdp", "tp"])
def test_no_step_waits_at_a_barrier(case, two):
    assert two[case]["barriers"] == 0  # under NCCL each would wait for the device


def test_each_of_two_processes_holds_half_of_the_parameters(two, single):
    everything = single("")["own"]
    assert two["ddp"]["own"] == everything
    assert two["fsdp"]["own"] * 2 == everything
    # norms are whole on both: 5 of width 24 and 4 of head_dim 4
    assert two["tp"]["own"] == (everything - 136) / 2 + 136


@pytest.mark.slow
def test_a_network_is_built_in_the_memory_of_its_part(tmp_path):
    memory = launch(2, tmp_path, ("build",))["build"]
    # besides its half: one whole matrix at a time (value, copy, part) and what the allocator keeps
    assert memory["whole"] / 2 <= memory["grown"] < memory["whole"] * 0.6 + 8 * memory["largest"]


class FourOf(Sharded):
    """Four devices on two nodes, without starting them."""

    world_size, num_processes, global_rank = 4, 2, 3

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.num_nodes = 2


@pytest.mark.parametrize(
    ("options", "shape", "place"),
    [
        ({}, (1, 4, 1), {"num_replicas": 4, "rank": 3}),
        ({"tensor_parallel": 2}, (1, 2, 2), {"num_replicas": 2, "rank": 1}),
        ({"tensor_parallel": "auto"}, (1, 2, 2), {"num_replicas": 2, "rank": 1}),
        ({"replicate": "auto"}, (2, 2, 1), {"num_replicas": 4, "rank": 3}),
        ({"replicate": 2, "tensor_parallel": 2}, (2, 1, 2), {"num_replicas": 2, "rank": 1}),
    ],
)
def test_devices_are_laid_out_as_replicate_shard_tensor(options, shape, place):
    strategy = FourOf(**options)
    assert strategy.mesh_shape() == shape
    assert strategy.distributed_sampler_kwargs == place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": 3}, "4 devices are no multiple of tensor_parallel=3 x replicate=1"),
        ({"replicate": 8}, "4 devices are no multiple of tensor_parallel=1 x replicate=8"),
        ({"tensor_parallel": 0}, "tensor_parallel=0 is no number of devices"),
        ({"timeout_minutes": 0}, "timeout_minutes=0 is no time"),
    ],
)
def test_impossible_layouts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FourOf(**options).mesh_shape()


def test_what_the_tests_compare_is_not_trivial(single):
    assert GPTConfig(**{"vocab_size": 50}).padded_vocab_size == 64  # ids that only pad are split
    assert single("")["losses"][0] == pytest.approx(3.9, abs=0.2)  # about ln(50)
