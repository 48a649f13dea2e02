"""The outer gradient, how far it is from finite differences, and its memory."""

from collections.abc import Callable

import torch
from torch.func import vmap
from torch.profiler import ProfilerActivity, profile

from app.episode import Episode
from app.inner_loop.params import Params
from app.learners.meta_algorithm import MetaAlgorithm
from helpers.small import flat


def gradient_of(algorithm: MetaAlgorithm, batch: Episode) -> Params:
    return algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)[0]


def slopes(algorithm: MetaAlgorithm, batch: Episode, directions: list[Params], step: float = 1e-6) -> torch.Tensor:
    """Central finite differences of the outer loss along each direction."""
    start = dict(algorithm.named_parameters())
    points = {
        name: torch.stack([weight + sign * step * direction[name] for sign in (1, -1) for direction in directions])
        for name, weight in start.items()
    }

    def loss(params: Params) -> torch.Tensor:
        return vmap(lambda episode: algorithm.task_loss(params, episode)[0])(batch).mean()

    with torch.no_grad():
        ahead, behind = vmap(loss)(points).chunk(2)
    return (ahead - behind) / (2 * step)


def difference_error(
    algorithm: MetaAlgorithm, batch: Episode, gradient: Params, num_directions: int = 5, step: float = 1e-6
) -> float:
    """Median relative error along random unit directions: a kink of ReLU or max-pool spoils one of them, a defect all."""
    torch.manual_seed(1)
    directions = [{name: torch.randn_like(weight) for name, weight in gradient.items()} for _ in range(num_directions)]
    norms = [flat(direction).norm() for direction in directions]
    directions = [{k: v / norm for k, v in direction.items()} for direction, norm in zip(directions, norms, strict=True)]
    expected = slopes(algorithm, batch, directions, step)
    actual = torch.stack([flat(gradient) @ flat(direction) for direction in directions])
    return float(((actual - expected) / expected).abs().median())


def stacked_difference_error(algorithm: MetaAlgorithm, batch: Episode, num_directions: int = 5, step: float = 1e-6) -> float:
    """As `difference_error` of the outer gradient, for methods whose layers vmap has no rule for, or that draw noise."""
    params = dict(algorithm.named_parameters())
    gradient = gradient_of(algorithm, batch)
    errors = []
    for seed in range(num_directions):
        torch.manual_seed(seed)
        direction = {name: torch.randn_like(weight) for name, weight in params.items()}
        size = step / flat(direction).norm()
        with torch.no_grad():
            ahead, behind = (
                algorithm.losses({name: weight + sign * size * direction[name] for name, weight in params.items()}, batch)[
                    0
                ].mean()
                for sign in (1, -1)
            )
        errors.append(abs((ahead - behind) / (2 * size) / (flat(gradient) @ flat(direction)) - 1))
    return float(torch.stack(errors).median())


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory that is allocated at once while the function runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    total = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            most = max(most, total)
    return most
