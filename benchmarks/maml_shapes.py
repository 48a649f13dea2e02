"""The settings in which MAML's outer step is timed, and the step itself, ours and others'."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from app.algorithms.optimisation_based.maml import MAML
from app.backbones.conv4 import Conv4
from app.episode import Episode
from benchmarks.rivals import RIVALS, PlainConv4


class Shape(NamedTuple):
    """A setting of MAML on images; the meta-batch is what an outer step takes."""

    image: tuple[int, int, int]
    queries: int
    steps: int
    tasks: int
    lr: float
    network: dict[str, Any]


SHAPES = {
    "a": Shape((1, 28, 28), 1, 1, 32, 0.4, {"width": 64}),
    "b": Shape((1, 28, 28), 15, 5, 16, 0.1, {"width": 64}),
    "c": Shape((3, 84, 84), 15, 5, 4, 0.01, {"width": 32, "downsample": "max_pool"}),
}
WAYS = 5


def random_tasks(shape: Shape, device: str, shots: int = 1, ways: int = WAYS) -> Episode:
    """Tasks of noise: what is in the images does not change the time."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(ways)
    sizes = [shots, shape.queries]
    images = [torch.rand(shape.tasks, ways * size, *shape.image, generator=generator) for size in sizes]
    targets = [labels.repeat_interleave(size).expand(shape.tasks, -1).contiguous() for size in sizes]
    return Episode(*(tensor.to(device) for pair in zip(images, targets, strict=True) for tensor in pair))


def ours(shape: Shape, first_order: bool, ways: int = WAYS, **options: Any) -> MAML:
    """Our MAML for a shape."""
    torch.manual_seed(0)
    backbone = partial(Conv4, **shape.network)
    return MAML(
        input_shape=shape.image,
        output_size=ways,
        backbone=backbone,
        inner_steps=shape.steps,
        inner_lr=shape.lr,
        first_order=first_order,
        **options,
    )


def plain(algorithm: MAML, shape: Shape) -> nn.Module:
    """The same network, with the same weights, for the rivals."""
    max_pool = shape.network.get("downsample") == "max_pool"
    net = PlainConv4(shape.image[0], WAYS, shape.network["width"], max_pool, algorithm.net.num_features)
    for theirs, weight in zip(net.parameters(), algorithm.net.parameters(), strict=True):
        theirs.data.copy_(weight)
    return net


def our_step(algorithm: nn.Module, batch: Episode, precision: str = "32") -> Callable[[], None]:
    """One outer step of one of our methods."""
    params, optimizer = dict(algorithm.named_parameters()), torch.optim.Adam(algorithm.parameters())
    device = batch.support_x.device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            gradient, _ = algorithm.outer_gradient(params, batch)
        for name, value in params.items():
            value.grad = gradient[name]
        optimizer.step()

    return step


def their_step(rival: str, net: nn.Module, batch: Episode, shape: Shape, first_order: bool, precision: str) -> Callable[[], None]:
    """One outer step of another library."""
    optimizer, device = torch.optim.Adam(net.parameters()), batch.support_x.device.type

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            RIVALS[rival](net, batch, shape.steps, shape.lr, first_order)
        optimizer.step()

    return step
