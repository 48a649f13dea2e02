"""An algorithm that is adapted to a support set and asked about queries."""

from copy import copy, deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from app.backbones.task_batch_norm import TaskBatchNorm
from app.deploy import methods
from app.deploy.export import export
from app.deploy.held_out import FOLDS, HeldOut, folds
from app.deploy.inputs import Columns, Pictures
from app.deploy.methods import Method
from app.errors import InputError
from app.scores.temperature import tempered
from app.torch_internals import tree_map

if TYPE_CHECKING:
    from app.learners.meta_algorithm import MetaAlgorithm

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


class Adapted:
    """An algorithm adapted to one support set.

    Args:
        algorithm: in evaluation mode.
        reading: how queries are made into what the algorithm was trained on.
        support_x: the examples in that form.
        support_y: numbers of the classes, or targets in their own units.
        classes: names of the classes in the order of their numbers.
        method: which way to classify.

    Attributes:
        transductive: queries that are predicted together depend on each other.
    """

    def __init__(
        self,
        algorithm: "MetaAlgorithm",
        reading: Pictures | Columns,
        support_x: Tensor,
        support_y: Tensor,
        classes: list[Any],
        method: Method = "learned",
    ):
        self._begin(algorithm, reading, classes, method)
        self.support_x, self.support_y = support_x, support_y
        self.algorithm.check_inputs(self.scaled(support_x))
        with torch.no_grad():
            if copies := self.algorithm.support_copies:
                support_x = self.reading.preparation.fixed_copies(support_x, copies)
                support_y = support_y.repeat_interleave(copies)
            targets = self.scaled_targets(support_y)
            self.fitted = methods.fit(method, self.algorithm, self.params, self.scaled(support_x), targets)

    def _begin(self, algorithm: "MetaAlgorithm", reading: Pictures | Columns, classes: list[Any], method: Method) -> None:
        self.algorithm, self.reading, self.classes, self.method = copy(algorithm), reading, classes, method
        self.algorithm.output_size = len(classes) or algorithm.output_size  # that of this task
        self.params = {name: parameter.detach() for name, parameter in self.algorithm.named_parameters()}
        self.transductive = (
            method == "learned"
            and self.algorithm.transductive
            and any(isinstance(part, TaskBatchNorm) for part in self.algorithm.modules())
        )

    # How sure

    @property
    def fewest(self) -> int:
        """Examples of the class that has the fewest."""
        return int(self.support_y.bincount(minlength=len(self.classes)).min())

    @cached_property
    def held_out(self) -> HeldOut | None:
        """Answers to the examples that are left out in turn; null of a regression, and of one example a class."""
        if self.algorithm.task_type != "classification":
            return None
        fold = folds(self.support_y)
        if (fold < 0).all():
            return None
        rows, answers = [], []
        for number in range(int(fold.max()) + 1):
            out = fold == number
            others = Adapted(self.algorithm, self.reading, self.support_x[~out], self.support_y[~out], self.classes, self.method)
            answers.append(torch.cat([others.raw_outputs(part)[0].cpu() for part in self.support_x[out].split(ROWS)]))
            rows.append(out.nonzero()[:, 0].cpu())
        order = torch.cat(rows)
        is_one_by_one = int(self.support_y.bincount().max()) <= FOLDS
        return HeldOut(order, self.support_y.cpu()[order], torch.cat(answers), len(rows), is_one_by_one)

    @cached_property
    def temperature(self) -> float:
        """What corrects the confidence: chosen on validation tasks, and moved by what the support set says of itself.

        Where that cannot say anything, no answer becomes surer than the algorithm is: pictures unlike those of training are the
        ones that a checkpoint is too sure of.
        """
        of_checkpoint = (self.algorithm.temperature if self.method == "learned" else None) or 1.0
        if self.algorithm.task_type == "regression":
            return of_checkpoint
        with torch.no_grad():
            return self.held_out.temperature(of_checkpoint) if self.held_out else max(of_checkpoint, 1.0)

    # What the queries are

    def predict(self, query_x: Any, threshold: float | None = None) -> Classification | Regression:
        """What the queries are, each by itself.

        With `app.load(..., transductive=True)` all queries of one call are normalised together, as MAML's `test` does with those
        of an episode: what it says of one then depends on the others.

        Args:
            query_x: in the form of `support_x`.
            threshold: the label is `other` where no class is at least so probable; null for the most probable class always.
        """
        x = self.reading.inputs(query_x, "query_x").to(self.algorithm.device)
        self.algorithm.check_inputs(self.scaled(x))
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
        first, *deviations = self.raw_outputs(inputs)
        if self.algorithm.task_type == "classification":
            return (tempered(first, self.temperature),)
        return first, *(deviation * self.temperature for deviation in deviations)

    def raw_outputs(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The same as the algorithm has them, without any correction of its confidence."""
        scaled = self.scaled(inputs)
        if self.algorithm.task_type == "classification":
            with torch.no_grad():
                return (methods.probabilities(self.method, self.algorithm, self.params, self.fitted, scaled),)
        outputs = self.algorithm.predict(self.params, self.fitted, scaled)
        mean, std = self.reading.scale("y", inputs.device)
        means, *deviations = outputs.to(mean).split(self.algorithm.output_size, -1)
        return tuple(part.to(inputs.dtype) for part in (means * std + mean, *(deviation * std for deviation in deviations)))

    def scaled(self, inputs: Tensor) -> Tensor:
        """Inputs as the algorithm takes them."""
        return self.reading.scaled(inputs).to(next(iter(self.params.values())).dtype)

    def scaled_targets(self, targets: Tensor) -> Tensor:
        """Targets as the algorithm takes them."""
        if self.algorithm.task_type == "classification":
            return targets
        mean, std = self.reading.scale("y", targets.device)
        return ((targets - mean) / std).to(next(iter(self.params.values())).dtype)

    # Without this application

    def export(self, path: str, query_x: Any) -> None:
        """Writes this predictor as a program of torch.export, which needs nothing of this application.

        Args:
            path: of the file, for example adapted.pt2.
            query_x: some queries, which the program and `predict` must agree on.

        Raises:
            InputError: the algorithm cannot be exported, or the program differs.
        """
        export(self.on_cpu(), path, query_x)

    def on_cpu(self) -> "Adapted":
        """This predictor on the CPU, where every machine can run what is written of it."""
        _ = self.temperature  # which is no part of the program's work
        if self.algorithm.device.type == "cpu":
            return self
        twin = copy(self)
        twin.algorithm = deepcopy(self.algorithm).cpu()
        twin.params, twin.fitted, twin.support_x, twin.support_y = tree_map(
            _cpu, (self.params, self.fitted, self.support_x, self.support_y)
        )
        return twin


class Knowing(Adapted):
    """An algorithm that knows a task by other means than its examples.

    Args:
        algorithm: in evaluation mode.
        reading: as of Adapted.
        classes: names of the classes in the order of their numbers.
        fitted: what the algorithm's `adapt` would return; null for one that is asked nothing.
    """

    held_out, fewest = None, 0  # none to leave out; they are counted where they are summed

    def __init__(self, algorithm: "MetaAlgorithm", reading: Pictures | Columns, classes: list[Any], fitted: Any = None):
        self._begin(algorithm, reading, classes, "learned")
        self.fitted, self.support_x, self.support_y = fitted, torch.zeros(0), torch.zeros(0)


def _cpu(part: Any) -> Any:
    return part.cpu() if isinstance(part, Tensor) else part
