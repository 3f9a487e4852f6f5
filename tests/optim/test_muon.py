import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from lit_llm.optim import Muon
from lit_llm.optim.muon import orthogonalize


def steps(optimizer, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def gradients_of(shape, n=3):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator) for _ in range(n)]


@pytest.mark.parametrize("shape", [(6, 10), (11, 5), (8, 8)])
def test_matrices_move_as_under_torchs_muon(shape, monkeypatch):
    # torch hard-codes bfloat16 in the iteration: compare in it
    monkeypatch.setattr("lit_llm.optim.muon._fast_dtype", lambda device: torch.bfloat16)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([{"params": [ours], "kind": "matrix"}], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    moved = steps(mine, ours, gradients_of(shape))
    expected = steps(reference, theirs, gradients_of(shape))
    # bfloat16 rounds to 1 in 256, and the two round in another order
    torch.testing.assert_close(moved, expected, rtol=0, atol=4e-4)
    assert (moved - start).abs().mean() > 5e-3  # far more than the tolerance


@pytest.mark.parametrize("batch_elements", [2**20, 80, 1])
def test_matrices_that_are_updated_together_move_as_each_alone(batch_elements, monkeypatch):
    monkeypatch.setattr("lit_llm.optim.muon.BATCH_ELEMENTS", batch_elements)
    shapes = [(4, 9), (9, 4), (4, 9), (6, 6), (9, 4), (4, 9)]
    together = [torch.nn.Parameter(gradients_of(shape, 1)[0]) for shape in shapes]
    alone = [torch.nn.Parameter(parameter.detach().clone()) for parameter in together]
    group = [{"params": together, "kind": "matrix"}]
    optimizers = [Muon([{"params": [one], "kind": "matrix"}], lr=0.1) for one in alone]
    of_all = Muon(group, lr=0.1)
    for round in range(3):
        for number, (one, other) in enumerate(zip(together, alone, strict=True)):
            generator = torch.Generator().manual_seed(10 * round + number)
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
            optimizers[number].step()
        of_all.step()
    # in bfloat16, where matmuls in it are fast, sums of another order differ by 1 in 256
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)
        assert (one - gradients_of(one.shape, 1)[0]).abs().mean() > 0.03


def test_only_as_many_matrices_as_fit_a_batch_are_updated_at_once(monkeypatch):
    calls = []

    def spy(matrices, steps):
        calls.append(tuple(matrices.shape))
        return torch.zeros_like(matrices)

    monkeypatch.setattr("lit_llm.optim.muon.orthogonalize", spy)
    monkeypatch.setattr("lit_llm.optim.muon.BATCH_ELEMENTS", 100)
    parameters = [torch.nn.Parameter(torch.ones(s)) for s in [(4, 9), (9, 4), (4, 9), (20, 30)]]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    Muon([{"params": parameters, "kind": "matrix"}]).step()
    assert calls == [(2, 4, 9), (1, 4, 9), (1, 20, 30)]


def test_a_stack_is_orthogonalized_matrix_by_matrix():
    stack = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(4))
    stack[1] *= 100
    together = orthogonalize(stack, 5, torch.float32)
    for matrix, result in zip(stack, together, strict=True):
        torch.testing.assert_close(result, orthogonalize(matrix, 5, torch.float32))


def test_other_parameters_move_as_under_adamw():
    start = torch.randn(9, generator=torch.Generator().manual_seed(2))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.01, "weight_decay": 0.2, "betas": (0.8, 0.95), "eps": 1e-8}
    moved = steps(Muon([{"params": [ours], "kind": "vector"}], **settings), ours, gradients_of(9))
    reference = torch.optim.AdamW([theirs], **settings)
    torch.testing.assert_close(moved, steps(reference, theirs, gradients_of(9)))


@pytest.mark.parametrize("shape", [(7, 30), (30, 7)])
def test_orthogonalize_equalizes_singular_values_and_keeps_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    result = orthogonalize(matrix, 5, torch.float32)
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() <= values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v  # the orthogonal factor of the polar decomposition
    cosine = (nearest * result).sum() / nearest.norm() / result.norm()
    assert cosine > 0.98


def test_a_parameter_without_gradient_stays():
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    Muon([{"params": [parameter], "kind": "matrix"}], weight_decay=0.5).step()
    assert torch.equal(parameter.detach(), torch.ones(3, 4))


@pytest.fixture
def mesh(tmp_path):
    """One process, whose tensors are sharded all the same."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meet"), 1), **ALONE)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


ALONE = {"rank": 0, "world_size": 1}


class OnShards(TorchDispatchMode):
    """Counts operations on whole sharded tensors, each of which costs the host as much as ten."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(issubclass(kind, DTensor) for kind in types)
        return func(*args, **(kwargs or {}))


def test_a_shard_is_left_alone_without_more_operations_on_the_whole(mesh):
    def parameter(*shape):
        start = distribute_tensor(torch.randn(shape), mesh, [Shard(0)])
        made = torch.nn.Parameter(start)
        made.grad = torch.ones_like(start)
        return made

    matrix, vector = parameter(6, 4), parameter(5)
    groups = [{"params": [matrix], "kind": "matrix"}, {"params": [vector], "kind": "vector"}]
    optimizer = Muon(groups, lr=0.1)
    optimizer.step()
    counts = []
    for found_inf, changes in ((None, True), (torch.tensor(1.0), False), (torch.tensor(0.0), True)):
        optimizer.found_inf = found_inf
        state = [value for entries in optimizer.state.values() for value in entries.values()]
        tensors = [t.to_local() if isinstance(t, DTensor) else t for t in (matrix, vector, *state)]
        before = [tensor.detach().clone() for tensor in tensors]
        with OnShards() as mode:
            optimizer.step()
        counts.append(mode.count)
        assert all(torch.equal(a, b) != changes for a, b in zip(before, tensors, strict=True))
    assert len(set(counts)) == 1
    assert counts[0] > 0
