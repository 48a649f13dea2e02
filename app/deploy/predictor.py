"""A learned algorithm, adapted to a support set and asked about queries."""

from copy import copy, deepcopy
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.backbones.task_batch_norm import TaskBatchNorm
from app.deploy.export import export
from app.deploy.inputs import Columns, Pictures
from app.errors import InputError
from app.learners.meta_algorithm import MetaAlgorithm
from app.torch_internals import tree_map

ROWS = 512  # queries that are predicted together where that changes nothing but the memory
OTHER = "other"


class Classification(NamedTuple):
    """What is predicted of queries.

    Attributes:
        labels: the most probable class of each query, or `other`.
        probabilities: of shape (queries, classes), in the order of `Adapted.classes`.
    """

    labels: list[Any]
    probabilities: Tensor


class Regression(NamedTuple):
    """What is predicted at queries, in the units of the targets.

    Attributes:
        mean: of shape (queries, targets).
        std: standard deviations of the same shape, null where the algorithm predicts none.
    """

    mean: Tensor
    std: Tensor | None

    def interval(self) -> tuple[Tensor, Tensor] | None:
        """Ends of the central 95 % interval, each of shape (queries, targets)."""
        return None if self.std is None else (self.mean - 1.96 * self.std, self.mean + 1.96 * self.std)


class Predictor:
    """What a checkpoint has learned; `adapt` makes it a predictor of one task.

    Args:
        algorithm: in evaluation mode.
        reading: how inputs and targets are made into what the algorithm was trained on.
        name: what messages call the checkpoint.
    """

    def __init__(self, algorithm: MetaAlgorithm, reading: Pictures | Columns, name: str = "the checkpoint"):
        self.algorithm, self.reading, self.name = algorithm, reading, name

    def adapt(self, support_x: Any, support_y: Any) -> "Adapted":
        """The predictor of the task that these examples are of.

        Args:
            support_x: of classification: pixels of shape (rows, channels, height, width), uint8 or from 0 to 1, as the images
                of training, or paths of picture files of any size; of regression: inputs of shape (rows, columns).
            support_y: a label of any kind for each row; or targets of shape (rows, columns) or (rows,).

        Raises:
            InputError: the shapes, the labels or the number of classes do not suit the checkpoint.
        """
        x = self.reading.inputs(support_x, "support_x")
        if self.algorithm.task_type == "classification":
            labels = _labels(support_y)
            classes = self.check_classes(labels)
            y = torch.tensor([classes.index(label) for label in labels])
        else:
            y, classes = self.reading.targets(support_y, "support_y"), []
        if len(y) != len(x):
            raise InputError(f"support_x has {len(x)} rows and support_y {len(y)}; give one of each for every example")
        return Adapted(self, x.to(self.algorithm.device), y.to(self.algorithm.device), classes)

    def check_classes(self, labels: list[Any]) -> list[Any]:
        """The classes, sorted: that is the order in which the algorithm numbers them.

        Raises:
            InputError: there are fewer than two, or a number that the algorithm cannot tell apart.
        """
        try:
            classes = sorted(set(labels))
        except TypeError as error:
            raise InputError(
                f"support_y has labels that cannot be sorted ({error}); give all as text or all as numbers"
            ) from error
        if len(classes) < 2:
            found = f"only class {classes[0]!r}" if classes else "no class"
            raise InputError(f"the support set has {found}; give examples of at least 2 classes")
        ways = self.algorithm.output_size
        if len(classes) != ways and not self.algorithm.any_ways:
            raise InputError(
                f"{self.name} is of {type(self.algorithm).__name__} with a learned head of {ways} classes, and the support set "
                f"has {len(classes)}; give {ways}, or a checkpoint of an algorithm without such a head, for example ProtoNet"
            )
        return classes


class Adapted:
    """An algorithm adapted to one support set.

    Args:
        predictor: the learned algorithm.
        support_x: inputs as `Predictor.reading` gives them.
        support_y: numbers of the classes, or targets in their own units.
        classes: names of the classes in the order of their numbers.

    Attributes:
        transductive: queries that are predicted together depend on each other.
    """

    def __init__(self, predictor: Predictor, support_x: Tensor, support_y: Tensor, classes: list[Any]):
        self.algorithm, self.reading, self.classes = copy(predictor.algorithm), predictor.reading, classes
        self.algorithm.output_size = len(classes) or predictor.algorithm.output_size  # that of this task
        self.params = {name: parameter.detach() for name, parameter in self.algorithm.named_parameters()}
        self.transductive = self.algorithm.transductive and any(
            isinstance(part, TaskBatchNorm) for part in self.algorithm.modules()
        )
        self.algorithm.check_inputs(self._scaled(support_x))
        with torch.no_grad():
            adapted = self.algorithm.adapt(self.params, self._scaled(support_x), self._scaled_targets(support_y))
            # Copies: views would keep alive, and write into an exported program, all of what they are views of.
            self.adapted = tree_map(_copy, adapted)

    def predict(self, query_x: Any, threshold: float | None = None) -> Classification | Regression:
        """What the queries are.

        A transductive algorithm normalises all queries of one call together, as `test` does those of an episode: what it says of
        one depends on the others. `app.load(..., transductive=False)` predicts each by itself.

        Args:
            query_x: in the form of `support_x`.
            threshold: the label is `other` where no class is at least so probable; null for the most probable class always.
        """
        x = self.reading.inputs(query_x, "query_x").to(self.algorithm.device)
        self.algorithm.check_inputs(self._scaled(x))
        if threshold is not None:
            if isinstance(threshold, str) or not 0 < threshold < 1:
                raise InputError(f"threshold is {threshold!r}; give a probability between 0 and 1")
            if OTHER in self.classes:
                raise InputError(f"support_y has a class {OTHER!r}, which a threshold answers with; rename it")
        parts = [x] if self.transductive else x.split(ROWS)
        with torch.no_grad():
            found = [self.outputs(part) for part in parts]
        joined = tuple(torch.cat(part).cpu() for part in zip(*found, strict=True))
        if not all(part.isfinite().all() for part in joined):
            raise InputError("the predictions are not finite: the adaptation diverged; lower inner_lr or eval_inner_steps")
        if self.algorithm.task_type == "regression":
            return Regression(joined[0], joined[1] if len(joined) > 1 else None)
        (probabilities,) = joined
        best, number = probabilities.max(-1)
        labels = [self.classes[chosen] for chosen in number.tolist()]
        if threshold is not None:
            labels = [label if sure else OTHER for label, sure in zip(labels, (best >= threshold).tolist(), strict=True)]
        return Classification(labels, probabilities)

    def outputs(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Probabilities; or means, and standard deviations where there are some, in their own units.

        Args:
            inputs: pixels from 0 to 1, or the columns of a table in their own units; of shape (queries, *input).
        """
        outputs = self.algorithm.predict(self.params, self.adapted, self._scaled(inputs))
        if self.algorithm.task_type == "classification":
            return (self.algorithm.probabilities(outputs),)
        mean, std = self.reading.scale("y", inputs.device)
        means, *deviations = outputs.to(mean).split(self.algorithm.output_size, -1)
        return tuple(part.to(inputs.dtype) for part in (means * std + mean, *(deviation * std for deviation in deviations)))

    def _scaled(self, inputs: Tensor) -> Tensor:
        if isinstance(self.reading, Columns):
            mean, std = self.reading.scale("x", inputs.device)
            inputs = (inputs - mean) / std
        return inputs.to(next(iter(self.params.values())).dtype)

    def _scaled_targets(self, targets: Tensor) -> Tensor:
        if self.algorithm.task_type == "classification":
            return targets
        mean, std = self.reading.scale("y", targets.device)
        return ((targets - mean) / std).to(next(iter(self.params.values())).dtype)

    def export(self, path: str, query_x: Any) -> None:
        """Writes this predictor as a program of torch.export, which needs nothing of this application.

        Args:
            path: of the file, for example adapted.pt2.
            query_x: some queries, which the program and `predict` must agree on.

        Raises:
            InputError: the algorithm cannot be exported, or the program differs.
        """
        twin, inputs = self.on_cpu(), self.reading.inputs(query_x, "query_x").cpu()
        # Targets in the units that the algorithm was trained on: those of the table may be billions or billionths.
        unit = self.reading.scale("y", inputs.device)[1] if isinstance(self.reading, Columns) else 1.0
        dtype = next(iter(twin.params.values())).dtype
        export(twin.outputs, type(self.algorithm).__name__, path, inputs, dtype, unit)

    def on_cpu(self) -> "Adapted":
        """This predictor on the CPU, where every machine can run what is written of it."""
        if self.algorithm.device.type == "cpu":
            return self
        twin = copy(self)
        twin.algorithm = deepcopy(self.algorithm).cpu()
        twin.params, twin.adapted = tree_map(_cpu, (self.params, self.adapted))
        return twin


def _labels(values: Any) -> list[Any]:
    """Labels as Python's own values, of which equal ones are one class."""
    if isinstance(values, Tensor | np.ndarray) and values.ndim != 1:
        shape = ", ".join(map(str, values.shape))
        raise InputError(f"support_y has shape ({shape}); give one label for each example, of shape (rows,)")
    try:
        labels = [label.item() if isinstance(label, Tensor | np.generic) else label for label in values]
    except (TypeError, RuntimeError) as error:
        raise InputError(f"support_y is no list of labels ({error}); give one label for each example") from error
    if nans := sum(isinstance(label, float) and isnan(label) for label in labels):
        raise InputError(f"support_y has {nans} labels that are not a number; remove their rows")
    return labels


def _copy(part: Any) -> Any:
    return part.clone(memory_format=torch.contiguous_format) if isinstance(part, Tensor) else part


def _cpu(part: Any) -> Any:
    return part.cpu() if isinstance(part, Tensor) else part
