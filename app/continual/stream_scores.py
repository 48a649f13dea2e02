"""How well a method does on the test samples of its stream."""

from collections.abc import Iterable

import torch
from torch import Tensor

from app.backbones.rows import Rows
from app.continual.method_stack import MethodStack
from datamodules.base.stream import as_inputs

ROWS = 5000  # images that are classified together, of all streams


def among_classes_of(logits: Tensor, masks: Tensor, task: Tensor) -> Tensor:
    """Logits in which only the classes of an experience compete.

    Args:
        logits: of shape (samples, outputs).
        masks: which outputs are classes of an experience, of shape (experiences, outputs).
        task: number of the experience of each sample.
    """
    return logits.masked_fill(~masks[task], -torch.inf)


def mean_scores(
    stack: MethodStack, numbers: Iterable[int], views: tuple[str, ...], device: torch.device, num_images: int | None = None
) -> dict[int, dict[str, Tensor]]:
    """The mean score of some streams on the test samples of each experience, of shape (experiences,), by number and view.

    Args:
        stack: what learned.
        numbers: of the streams.
        views: of class, task and domain.
        device: where the images are.
        num_images: of each experience, the first ones; null for all.
    """
    method, of_streams = stack.method, {}
    for number in numbers:
        stream = stack.streams[number]
        parts = [stream.samples(experience, "test", device) for experience in range(len(stream.experiences))]
        images, y = (torch.cat([part[at][:num_images] for part in parts]) for at in (0, 1))
        counts = torch.tensor([len(part.y[:num_images]) for part in parts], device=device)
        of_streams[number] = images, y, counts, torch.arange(len(parts), device=device).repeat_interleave(counts)
    training = method.training
    method.eval()
    logits = _logits(stack, {number: (images, task) for number, (images, _, _, task) in of_streams.items()})
    method.train(training)
    found = {}
    for number, (_, y, counts, task) in of_streams.items():
        with stack.alone(number) as own:
            masks = own.masks
        found[number] = {}
        for view in views:
            competing = among_classes_of(logits[number], masks, task) if view == "task" else logits[number]
            scores = method.objective.score(competing, y).to(torch.float64)
            found[number][view] = torch.zeros_like(counts, dtype=torch.float64).index_add_(0, task, scores) / counts
    return found


@Rows(one_by_one=True)  # an image's features depend on no other image
def _logits(stack: MethodStack, asked: dict[int, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
    """Logits of images, with the numbers of their experiences."""
    method, rows = stack.method, max(1, ROWS // len(asked))

    def answer(numbers: list[int], images: Tensor, task: Tensor) -> Tensor:
        return method.predict(as_inputs(images), task if method.masked else None)

    parts: dict[int, list[Tensor]] = {number: [] for number in asked}
    for start in range(0, max(len(task) for _, task in asked.values()), rows):
        left = {number: part for number, part in asked.items() if start < len(part[1])}
        some = {number: tuple(whole[start : start + rows] for whole in part) for number, part in left.items()}
        for number, logits in stack.run(answer, some).items():
            parts[number].append(logits)
    return {number: torch.cat(part) for number, part in parts.items()}
