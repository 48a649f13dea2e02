"""What keeps a GPU's numbers the same, bit for bit."""

import pytest
import torch
from helpers.small import METHODS, NETWORKS, small_run, task_of, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from app.command_line.needed_callbacks import needed_callbacks
from callbacks.exact_kernels import ExactKernels
from callbacks.run_identity import RunIdentity

# Their kernels on a GPU add to the same place from several threads, in whatever order these come.
UNORDERED = (
    "index_add",
    "scatter_add",
    "scatter_reduce",
    "index_reduce",
    "_adaptive_avg_pool2d_backward",
    "embedding_dense_backward",
)


class Unordered(TorchDispatchMode):
    """Collects the operations whose sums have no order on a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        if name in UNORDERED and not (name == "scatter_add" and has_a_place_each(*args[1:3])):
            self.found.append((name, [tuple(part.shape) for part in args if isinstance(part, torch.Tensor)]))
        return func(*args, **(kwargs or {}))


def has_a_place_each(dim, index):
    return bool((index.sort(dim).values.diff(dim=dim) != 0).all())


def test_finds_what_has_no_order():
    table = torch.ones(3, 2, requires_grad=True)
    with Unordered() as mode:
        table.gather(0, torch.tensor([[0, 1], [2, 0]])).sum().backward()  # a place each
        assert not mode.found
        table.gather(0, torch.tensor([[0, 1], [0, 2]])).sum().backward()
        torch.zeros(2).index_add_(0, torch.tensor([0, 0]), torch.ones(2))
    assert [name for name, _ in mode.found] == ["scatter_add", "index_add"]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_adds_up_in_one_order(method):
    network = {} if method == "NeuralStatistician" else {"backbone": NETWORKS["Conv4_max_pool"]}
    algorithm, data = small_run(method, task_of(method), **network if task_of(method) == "classification" else {})
    with Unordered() as mode:
        trainer(max_steps=1, limit_val_batches=0).fit(algorithm, datamodule=data)
    assert not mode.found


def test_every_run_keeps_to_exact_convolutions(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    algorithm, data = small_run("ProtoNet")
    needed = needed_callbacks(algorithm, data, tmp_path, RunIdentity("id", {}, ""))
    (exact,) = (one for one in needed if isinstance(one, ExactKernels))
    trainer(max_steps=1, callbacks=(exact,), limit_val_batches=0).fit(algorithm, datamodule=data)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.allow_tf32
