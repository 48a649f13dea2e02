"""The memory of a learner: which kind its algorithm needs, and how it answers from it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from app.continual.stream_algorithm import StreamAlgorithm
from app.deploy.adapted import Adapted, Knowing
from app.deploy.inputs import Columns, Pictures
from app.deploy.ledger import digests_of
from app.deploy.predictor import Predictor, labels_of
from app.deploy.streams import KeptStream
from app.errors import InputError
from app.learners.kept import Group, Kept, Name
from app.learners.kept_examples import KeptExamples
from app.learners.kept_sums import KeepsSums, KeptSums, in_blocks
from app.torch_internals import tree_map


def new_memory(predictor: Predictor, memory: int | None, keep: str, seed: int) -> Kept:
    """The memory that the algorithm needs, with nothing in it; arguments as of `Predictor.learner`."""
    algorithm = predictor.algorithm
    if isinstance(algorithm, StreamAlgorithm):
        if memory is not None or keep != "all":
            raise InputError(
                "--memory and --keep are for examples, and a method for streams has a memory of its own; leave them out"
            )
        return KeptStream(algorithm)
    if not (isinstance(algorithm, KeepsSums) and algorithm.sums_are_enough):
        return KeptExamples(memory, keep, seed, _features(predictor))
    if memory is not None or keep != "all":
        raise InputError(f"--memory and --keep are for examples, and {type(algorithm).__name__} keeps sums alone; leave them out")
    return KeptSums(_addends(predictor))


def empty_memory(predictor: Predictor, kind: str) -> Kept:
    """A memory of that kind, to be filled from a file."""
    if kind == "stream":
        return KeptStream(predictor.algorithm)
    return KeptSums(_addends(predictor)) if kind == "sums" else KeptExamples(None, "all", 0, _features(predictor))


def answering(predictor: Predictor, kept: Kept, names: list[Name]) -> Adapted:
    """The predictor of classes, or of one task, that are in the memory.

    Args:
        predictor: the learned algorithm.
        kept: the memory.
        names: of the classes in their order, or of the task.
    """
    algorithm, reading, device = predictor.algorithm, predictor.reading, predictor.algorithm.device
    classes = names if algorithm.task_type == "classification" else []
    if isinstance(kept, KeptExamples):
        x, y = kept.examples(names)
        return Adapted(algorithm, reading, x.to(device), y.to(device), classes)
    knowing = Knowing(algorithm, reading, classes)
    if isinstance(kept, KeptStream):
        knowing.fitted = torch.tensor([kept.numbers[name] for name in names], device=device)
        return knowing
    sums, counts = (part.to(device) for part in kept.totals(names))
    with torch.no_grad():
        fitted = knowing.algorithm.from_sums(knowing.params, sums, counts)
    dtype = torch.promote_types(next(iter(knowing.params.values())).dtype, torch.float32)
    knowing.fitted = tree_map(lambda part: part.to(dtype), fitted)
    return knowing


def groups_of(predictor: Predictor, reading: Pictures | Columns, x: Any, y: Any, task: Name) -> dict[Name, Group]:
    """Examples by their classes, or all of them as those of a task; arguments as of `LivingLearner.learn`."""
    inputs, targets = reading.inputs(x, "x"), None
    if predictor.algorithm.task_type == "classification":
        names = labels_of(y, "y")
    else:
        targets = reading.targets(y, "y")
        names = [task] * len(targets)
    if len(names) != len(inputs):
        raise InputError(f"x has {len(inputs)} rows and y {len(names)}; give one of each for every example")
    digests, rows = digests_of(inputs, targets), {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return {name: some_of(inputs, targets, digests, chosen) for name, chosen in rows.items()}


def some_of(x: Tensor, y: Tensor | None, digests: list[bytes], rows: list[int]) -> Group:
    """Some of these examples."""
    return Group(x[rows], None if y is None else y[rows], [digests[row] for row in rows])


def check_mergeable(mine: tuple[Predictor, Kept], other: tuple[Predictor, Kept]) -> None:
    """Raises an InputError where another learner's memory is of another method, network or kind."""
    one, two = (f"{type(predictor.algorithm).__name__} ({kept.kind})" for predictor, kept in (mine, other))
    taught = [predictor.reading for predictor, kept in (mine, other) if kept.counts]
    if len({reading.inverts for reading in taught if isinstance(reading, Pictures)}) > 1:
        raise InputError("--merge: one learner has learned dark lines on light and the other light ones on dark; see --polarity")
    if one != two:
        raise InputError(f"--merge: the other learner is of {two}, and this one is of {one}; merge two of one checkpoint")
    own, others = (predictor.algorithm.state_dict() for predictor, _ in (mine, other))
    if differing := [name for name in own.keys() | others.keys() if not _same(own.get(name), others.get(name))]:
        raise InputError(
            f"--merge: the network of the other learner is another one, {min(differing)} differs; merge two of one checkpoint"
        )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one.cpu(), other.cpu())


def _addends(predictor: Predictor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What examples add to the sums, block by block."""
    blank = Knowing(predictor.algorithm, predictor.reading, [])
    device = predictor.algorithm.device

    def addends(x: Tensor, y: Tensor | None) -> Tensor:
        inputs = blank.scaled(x.to(device))
        blank.algorithm.check_inputs(inputs)
        return blank.algorithm.addends(blank.params, inputs, None if y is None else blank.scaled_targets(y.to(device)))

    def in_blocks_of_one_size(x: Tensor, y: Tensor | None) -> Tensor:
        with torch.no_grad():
            return in_blocks(addends, x, y)

    return in_blocks_of_one_size


def _features(predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """What the rule `nearest` compares examples by."""
    blank = Knowing(predictor.algorithm, predictor.reading, [])
    return lambda x: blank.scaled(x).flatten(1)
