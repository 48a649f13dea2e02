"""The memory of a learner: which kind its algorithm needs, and how it answers from it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm
from app.continual.stream_algorithm import StreamAlgorithm
from app.deploy.adapted import Adapted, Knowing
from app.deploy.drift import feature_rows
from app.deploy.inputs import Columns, Pictures
from app.deploy.ledger import digests_of
from app.deploy.names import check_sortable, method_name
from app.deploy.predictor import Predictor, labels_of
from app.deploy.running_head import KeptHead
from app.deploy.streams import KeptStream
from app.errors import InputError
from app.learners.kept import Group, Kept, Name
from app.learners.kept_examples import KeptExamples
from app.learners.kept_sums import KeepsSums, KeptSums, in_blocks
from app.torch_internals import tree_map


def new_memory(predictor: Predictor, memory: int | None, keep: str, seed: int, window: int | None) -> Kept:
    """The memory that the algorithm needs, with nothing in it; arguments as of `Predictor.learner`."""
    algorithm, chooses = predictor.algorithm, memory is not None or keep != "all"
    if window is not None and window < 1:
        raise InputError(f"--window is {window}; give at least 1, or leave it out")
    if window is not None and chooses:
        raise InputError("--window keeps the last examples of a class, and --memory and --keep others; leave one of the two out")
    if isinstance(algorithm, StreamAlgorithm):
        if chooses or window is not None:
            raise InputError(
                "--memory, --keep and --window are for examples, and a method for streams has weights and a memory of its own, "
                "from which no single example fades; leave them out"
            )
        return KeptStream(algorithm)
    if window is not None:  # of sums alone nothing can fade
        return KeptExamples(window, "last", seed, feature_rows(predictor))
    if isinstance(algorithm, KeepsSums) and algorithm.sums_are_enough:
        if chooses:
            raise InputError(
                f"--memory and --keep are for examples, and {type(algorithm).__name__} keeps sums alone; leave them out"
            )
        return empty_memory(predictor, KeptSums.kind)
    if isinstance(algorithm, DeployedAlgorithm) and not chooses:
        return empty_memory(predictor, KeptHead.kind)
    return KeptExamples(memory, keep, seed, feature_rows(predictor))


def empty_memory(predictor: Predictor, kind: str) -> Kept:
    """A memory of that kind, to be filled from a file."""
    makers = {
        KeptStream.kind: lambda: KeptStream(predictor.algorithm),
        KeptSums.kind: lambda: KeptSums(_addends(predictor)),
        KeptHead.kind: lambda: KeptHead(_encoded(predictor), predictor.algorithm),
        KeptExamples.kind: lambda: KeptExamples(None, "all", 0, feature_rows(predictor)),
    }
    return makers[kind]()


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
    if isinstance(kept, KeptHead):
        knowing.fitted = kept.rows(names).to(device)
        return knowing
    sums, counts = (part.to(device) for part in kept.totals(names))
    knowing.fewest = int(counts.min())
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


def check_names(predictor: Predictor, names: set[Name]) -> None:
    """Raises an InputError where names have no order, or are more classes than the algorithm can know."""
    check_sortable(names)
    algorithm = predictor.algorithm
    if algorithm.task_type == "classification" and not algorithm.any_ways and len(names) > algorithm.output_size:
        raise InputError(
            f"{predictor.name} is of {type(algorithm).__name__} with a learned head of {algorithm.output_size} classes, "
            f"and would have to know {len(names)}; give a checkpoint of an algorithm without such a head, such as ProtoNet"
        )


def some_of(x: Tensor, y: Tensor | None, digests: list[bytes], rows: list[int]) -> Group:
    """Some of these examples."""
    return Group(x[rows], None if y is None else y[rows], [digests[row] for row in rows])


def check_mergeable(mine: tuple[Predictor, Kept], other: tuple[Predictor, Kept]) -> None:
    """Raises an InputError where another learner's memory is of another method, network or kind."""
    one, two = (f"{method_name(predictor.algorithm)} ({kept.kind})" for predictor, kept in (mine, other))
    if one != two:
        raise InputError(f"--merge: the other learner is of {two}, and this one is of {one}; merge two of one checkpoint")
    own, others = (predictor.algorithm.state_dict() for predictor, _ in (mine, other))
    if differing := [name for name in own.keys() | others.keys() if not _same(own.get(name), others.get(name))]:
        raise InputError(
            f"--merge: the network of the other learner is another one, {min(differing)} differs; merge two of one checkpoint"
        )
    taught = [predictor.reading for predictor, kept in (mine, other) if kept.counts]
    if len({reading.inverts for reading in taught if isinstance(reading, Pictures)}) > 1:
        raise InputError("--merge: one learner has learned dark lines on light and the other light ones on dark; see --polarity")


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


def _encoded(predictor: Predictor) -> Callable[[Tensor], Tensor]:
    """The features from which the head of an algorithm learns, with the constant."""
    blank = Knowing(predictor.algorithm, predictor.reading, [])

    def encoded(x: Tensor) -> Tensor:
        inputs = blank.scaled(x.to(predictor.algorithm.device))
        blank.algorithm.check_inputs(inputs)
        with torch.no_grad():
            return in_blocks(lambda rows: blank.algorithm.encode(blank.params, rows[None])[0], inputs)

    return encoded
