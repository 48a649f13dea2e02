"""What the tasks of an outer step come to together, whatever processes they are on."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed

from app.inner_loop.params import Params
from app.runs.collectives import means


class Outcome(NamedTuple):
    """What some tasks come to, each tensor a mean over them.

    Attributes:
        gradient: the direction against which the outer optimiser steps.
        metrics: numbers that are logged.
        statistics: what the tasks leave for the algorithm's buffers.
    """

    gradient: Params
    metrics: dict[str, Tensor]
    statistics: dict[str, Tensor]

    def tensors(self) -> dict[tuple[str, str], Tensor]:
        """All of them by attribute and name."""
        return {(kind, name): tensor for kind, named in self._asdict().items() for name, tensor in named.items()}

    def replaced(self, tensors: dict[tuple[str, str], Tensor]) -> "Outcome":
        """The same with other tensors in their places."""
        return Outcome(*({name: tensors[kind, name] for name in named} for kind, named in self._asdict().items()))


def mean_of_processes(outcome: Outcome, with_metrics: bool) -> Outcome:
    """That of an outer step of which each process has an equal share; the gradients are left for DDP to average.

    Args:
        outcome: of this process's share.
        with_metrics: whether the metrics are averaged, too.
    """
    tensors = outcome.tensors()
    shared = {"statistics", "metrics"} if with_metrics else {"statistics"}
    return outcome.replaced(tensors | means({key: tensor for key, tensor in tensors.items() if key[0] in shared}))


def mean_of_blocks(blocks: list[Outcome]) -> Outcome:
    """That of an outer step of equal blocks, the same bits on any number of processes: they are summed in pairs, in their order.

    Args:
        blocks: of this process; all processes have as many, and all call this.
    """
    parts = [block.tensors() for block in blocks]
    found = dict(parts[0])
    for dtype in {tensor.dtype: None for tensor in found.values()}:
        keys = [key for key, tensor in parts[0].items() if tensor.dtype == dtype]
        rows = _of_all_processes(torch.stack([torch.cat([part[key].reshape(-1) for key in keys]) for part in parts]))
        mean = (_sum_in_pairs(rows) / len(rows)).split([found[key].numel() for key in keys])
        found |= {key: tensor.view_as(found[key]) for key, tensor in zip(keys, mean, strict=True)}
    return blocks[0].replaced(found)


def _of_all_processes(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the ranks."""
    if not distributed.is_available() or not distributed.is_initialized():
        return rows
    gathered = rows.new_empty(distributed.get_world_size() * len(rows), rows.shape[1])
    distributed.all_gather_into_tensor(gathered, rows)
    return gathered


def _sum_in_pairs(rows: Tensor) -> Tensor:
    while len(rows) > 1:
        pairs = len(rows) // 2 * 2
        rows = torch.cat([rows[0:pairs:2] + rows[1:pairs:2], rows[pairs:]])
    return rows[0]


def keep_as_computed(state: None, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """What DDP does with gradients that are the same on all processes already: nothing.

    Args:
        state: unused.
        bucket: some of the gradients.
    """
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done
