"""What the simplest learners make of a stream, and in regression the exact one: lines to hold what was learned against."""

from collections.abc import Callable, Iterable
from statistics import mean

import torch
from torch import Tensor, nn

from app.backbones.rows import Rows
from app.continual.method_stack import MethodStack
from app.continual.methods.bayesian_linear import BayesianLinear
from datamodules.base.stream import StreamDataModule, as_inputs

ROWS = 1000  # images at a time
CHANCE, RAW, OWN = "chance", "nearest mean of raw pixels", "nearest mean of its features"
ENCODED = "nearest mean of the encoder's features"  # in place of raw pixels, where the stream has an encoder
MEAN, POSTERIOR = "mean of the targets", "exact posterior on random features"  # in regression
EXPLAINED = {
    CHANCE: "one over the classes that compete",
    RAW: "of all training images of each class, no network",
    ENCODED: "of all training images of each class, no other network",
    OWN: "of all training images of each class, in the network after the stream",
    MEAN: "of all training samples of the stream",
    POSTERIOR: "BayesianLinear after all training samples of the stream",
}


@torch.no_grad()
def references(net: nn.Module, stream: StreamDataModule, masks: Tensor, view: str) -> dict[str, float]:
    """The mean accuracy over the test images of the experiences, as ACC is it; in regression the squared error, as MSE is it.

    Args:
        net: after the stream.
        stream: what it went through.
        masks: which outputs are classes of an experience, of shape (experiences, outputs).
        view: class, task or domain: in task only the classes of the experience compete.
    """
    dtype, device = next(net.parameters()).dtype, masks.device
    if stream.task_type == "regression":
        return _of_numbers(net, stream, device)
    numbers, task = range(len(stream.experiences)), view == "task"
    found = {CHANCE: float((1 / (masks.sum(1) if task else torch.full((len(masks),), masks.shape[1]))).double().mean())}
    ways: dict[str, Callable[[Tensor], Tensor]] = {ENCODED if stream.encoder else RAW: lambda images: images.flatten(1).double()}
    if hasattr(net, "body"):
        ways[OWN] = lambda images: net.body(as_inputs(images).to(dtype)).flatten(1).double()
    with Rows(one_by_one=True):
        for name, features in ways.items():
            sums = counts = 0.0
            for number in numbers:
                for images, y in _parts(stream, number, "train", device):
                    members = nn.functional.one_hot(y, masks.shape[1]).double()
                    sums, counts = sums + members.T @ features(images), counts + members.sum(0)
            means, absent = sums / counts.clamp(min=1)[:, None], counts == 0
            shares = []
            for number in numbers:
                right = total = 0
                for images, y in _parts(stream, number, "test", device):
                    distances = torch.cdist(features(images), means).masked_fill(absent, torch.inf)
                    distances = distances.masked_fill(~masks[number], torch.inf) if task else distances
                    right, total = right + int((distances.argmin(1) == y).sum()), total + len(y)
                shares.append(right / max(total, 1))
            found[name] = sum(shares) / len(shares)
    return found


def _of_numbers(net: nn.Module, stream: StreamDataModule, device: torch.device) -> dict[str, float]:
    """The squared errors of what is no network."""
    posterior, numbers = BayesianLinear(net, stream).to(device), range(len(stream.experiences))
    train = [stream.samples(number, "train", device) for number in numbers]
    for samples in train:
        posterior.add(samples.images, samples.y)
    mean = torch.cat([samples.y for samples in train]).double().mean(0)
    ways = {MEAN: lambda x: mean.expand(len(x), -1), POSTERIOR: lambda x: posterior.predict(x.double())}
    tests = [stream.samples(number, "test", device) for number in numbers]
    errors = {
        name: torch.stack([posterior.objective.loss(way(samples.images), samples.y) for samples in tests])
        for name, way in ways.items()
    }
    return {name: float(found.mean()) for name, found in errors.items()}


def mean_references(stack: MethodStack, views: Iterable[str]) -> dict[str, dict[str, float]]:
    """The same in each view, means over streams.

    Args:
        stack: what went through them.
        views: of class, task and domain.
    """
    of_views: dict[str, list[dict[str, float]]] = {view: [] for view in views}
    for number, stream in enumerate(stack.streams):
        with stack.alone(number) as own:
            for view, found in of_views.items():
                found.append(references(own.net, stream, own.masks, view))
    return {view: {name: mean(one[name] for one in found) for name in found[0]} for view, found in of_views.items()}


def _parts(stream: StreamDataModule, number: int, split: str, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    samples = stream.samples(number, split, device)
    return list(zip(samples.images.split(ROWS), samples.y.split(ROWS), strict=True))
