"""Normalisation inside an inner loop."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.backbones.batch_statistics import normalise
from app.backbones.rows import Rows
from app.inner_loop.task_stack import TaskStack
from app.scores.losses import widened
from app.torch_internals import is_transformed


class TaskBatchNorm(nn.Module):
    """Batch normalisation by the statistics of the rows of one task, or as `Rows` says.

    Inside an inner loop it is written from mean and variance: `nn.BatchNorm2d` under `vmap(func.grad)` returns wrong second-order
    gradients.

    Args:
        num_features: channels of the input, whose shape is (rows, channels, *spatial).
        eps: added to the variance.
        momentum: share of an outer step in the running statistics.
        scale: whether there is a weight to learn; else it is 1.
    """

    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, scale: bool = True):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        if scale:
            self.weight = nn.Parameter(torch.ones(num_features))
        else:
            self.register_buffer("weight", torch.ones(num_features), persistent=False)
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", None)
        self.register_buffer("running_var", None)
        self.uses_running_statistics = False
        self.seen: list[Tensor] = []

    def keep_running_statistics(self, used: bool) -> None:
        """From now on `update_running_statistics` averages the statistics of the training tasks.

        Args:
            used: whether these averages take the place of the task's own statistics in evaluation.
        """
        self.running_mean, self.running_var = torch.zeros_like(self.bias.data), torch.ones_like(self.weight.data)
        self.uses_running_statistics = used

    def forward(self, x: Tensor) -> Tensor:
        wide = widened(x)
        rows, tasks = Rows.current(), TaskStack.current()
        if rows.one_by_one:
            return self._row_by_row(wide, rows.by_channel).to(x.dtype)
        if self.uses_running_statistics and not self.training:
            result = F.batch_norm(wide, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        elif tasks is not None and not rows.reference and wide[:, 0].numel() > 1:
            result = tasks.map_channels(lambda *of_tasks: normalise(*of_tasks, self.eps), wide, self.weight, self.bias)
        elif is_transformed(wide) or is_transformed(self.weight) or rows.reference:
            result = self._by_hand(wide, rows.reference)
        elif wide[:, 0].numel() == rows.num_tasks:  # one value a task, which torch's kernel refuses
            result = torch.zeros_like(wide) + self.bias.view(1, -1, *(1 for _ in range(2, x.ndim)))
        else:
            result = self._fused(wide, rows.num_tasks)
        return result.to(x.dtype)

    def _by_hand(self, x: Tensor, reference_rows: int | None) -> Tensor:
        dims, shape = (0, *range(2, x.ndim)), (1, -1, *(1 for _ in range(2, x.ndim)))
        reference = x[:reference_rows]
        mean = reference.mean(dims, keepdim=True)
        variance = (reference - mean).square().mean(dims, keepdim=True)
        scale = self.weight.view(shape) * torch.rsqrt(variance + self.eps)
        return (x - mean) * scale + self.bias.view(shape)

    def _row_by_row(self, x: Tensor, by_channel: bool) -> Tensor:
        first = 2 if by_channel and x[0, 0].numel() > 1 else 1
        dims, shape = tuple(range(first, x.ndim)), (1, -1, *(1 for _ in range(2, x.ndim)))
        if is_transformed(x) or is_transformed(self.weight):
            centred = x - x.mean(dims, keepdim=True)
            normal = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + self.eps)
        else:
            normal = F.layer_norm(x, x.shape[first:], eps=self.eps)
        return normal * self.weight.view(shape) + self.bias.view(shape)

    def _fused(self, x: Tensor, num_tasks: int) -> Tensor:
        """The same by torch's own kernel: several times faster, and right where no functorch transform is around it."""
        statistics = [(torch.zeros_like(self.bias), torch.ones_like(self.bias)) for _ in range(num_tasks)]
        parts = x.chunk(num_tasks) if num_tasks > 1 else [x]  # torch.export cannot chunk a number of rows it leaves open
        tasks = [
            # With a momentum of 1 the statistics that are handed in become those of the task.
            F.batch_norm(rows, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
            for rows, (mean, variance) in zip(parts, statistics, strict=True)
        ]
        if self.running_mean is not None and self.training:
            self.seen += [torch.stack(of_task) for of_task in statistics]
        return torch.cat(tasks)


def norm_parameters(network: nn.Module) -> list[str]:
    """Names of the weights and biases of a network's TaskBatchNorms."""
    norms = {name for name, module in network.named_modules() if isinstance(module, TaskBatchNorm)}
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] in norms]


def take_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The mean of the means and variances that norms had since the last call, of shape (2, channels), by the norm's name.

    Args:
        network: whose TaskBatchNorms keep running statistics and have seen tasks, in however many chunks, or all at once.
    """
    found = {}
    for name, norm in _that_keep(network):
        if norm.seen:
            found[name] = sum(norm.seen) / len(norm.seen)
            norm.seen = []
    return found


@torch.no_grad()
def update_running_statistics(network: nn.Module, statistics: dict[str, Tensor]) -> None:
    """Moves the running statistics towards those of an outer step.

    Args:
        network: whose TaskBatchNorms keep running statistics.
        statistics: what `take_statistics` gave, averaged over all tasks of the step.
    """
    for name, norm in _that_keep(network):
        if name in statistics:
            mean, variance = statistics[name]
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance, norm.momentum)


def _that_keep(network: nn.Module) -> Iterator[tuple[str, TaskBatchNorm]]:
    for name, module in network.named_modules():
        if isinstance(module, TaskBatchNorm) and module.running_mean is not None:
            yield name, module
