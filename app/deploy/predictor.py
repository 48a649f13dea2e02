"""What a checkpoint has learned, to be adapted to a support set."""

from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.continual.stream_algorithm import StreamAlgorithm
from app.deploy.adapted import Adapted
from app.deploy.inputs import Columns, Pictures
from app.deploy.methods import METHODS, Method, allowed
from app.errors import InputError
from app.learners.meta_algorithm import MetaAlgorithm

if TYPE_CHECKING:
    from app.deploy.living_learner import LivingLearner


class Source(NamedTuple):
    """What a predictor was made of.

    Attributes:
        checkpoint: as it was read.
        options: of the algorithm, instead of those in the checkpoint.
        polarity: as of `app.load`.
        encoder_weights: as of `app.load`.
    """

    checkpoint: dict[str, Any]
    options: dict[str, Any]
    polarity: str = "auto"
    encoder_weights: str | None = None


class Predictor:
    """What a checkpoint has learned; `adapt` makes it a predictor of one task, `learner` one that learns on.

    Args:
        algorithm: in evaluation mode.
        reading: how inputs and targets are made into what the algorithm was trained on.
        name: what messages call the checkpoint.
        source: what it was made of, to be written down again.
    """

    def __init__(
        self,
        algorithm: MetaAlgorithm,
        reading: Pictures | Columns,
        name: str = "the checkpoint",
        source: Source | None = None,
    ):
        self.algorithm, self.reading, self.name, self.source = algorithm, reading, name, source

    def __repr__(self) -> str:
        how = "queries of a call together" if self.algorithm.transductive else "each query by itself"
        return f"{type(self.algorithm).__name__} of {self.name}, {how}"

    def learner(self, memory: int | None = None, keep: str = "all", seed: int = 0, window: int | None = None) -> "LivingLearner":
        """A learner that has learned nothing yet, and learns class after class.

        Args:
            memory: examples of a class that it keeps, where its algorithm needs them; null for any number.
            keep: which of them, where more arrive: all, first, random or nearest.
            seed: of `random`.
            window: only the last so many examples of a class count, and older ones fade; null for all.
        """
        from app.deploy.living_learner import LivingLearner

        return LivingLearner.begun(self, memory, keep, seed, window)

    def adapt(self, support_x: Any, support_y: Any, method: Method = "learned") -> Adapted:
        """The predictor of the task that these examples are of.

        Args:
            support_x: of classification: paths of picture files, or pixels of any size, of shape (rows, channels, height, width),
                uint8 or from 0 to 1; of regression: inputs of shape (rows, columns).
            support_y: a label of any kind for each row; or targets of shape (rows, columns) or (rows,).
            method: learned, as the checkpoint was trained; or the nearest mean of its features or of raw pixels.

        Raises:
            InputError: the shapes, the labels, the number of classes or the method do not suit the checkpoint.
        """
        if isinstance(self.algorithm, StreamAlgorithm):
            raise InputError(
                f"{self.name} is of a method for streams, which learns and does not adapt; begin a learner: `learn` with "
                "--ckpt_path, then `predict` with --learner"
            )
        if method not in (known := allowed(self.algorithm)):
            reason = "is none" if method not in METHODS else f"{type(self.algorithm).__name__} does not have"
            raise InputError(f"method is {method!r}, which {reason}; give {' or '.join(known)}")
        reading = self.reading
        if isinstance(reading, Pictures):
            levels = reading.levels(support_x, "support_x")
            reading = reading.settled(levels)
            x = reading.as_trained(levels.to(torch.get_default_dtype()))
        else:
            x = reading.inputs(support_x, "support_x")
        if self.algorithm.task_type == "classification":
            labels = labels_of(support_y, "support_y")
            classes = self.check_classes(labels, method)
            y = torch.tensor([classes.index(label) for label in labels])
        else:
            y, classes = self.reading.targets(support_y, "support_y"), []
        if len(y) != len(x):
            raise InputError(f"support_x has {len(x)} rows and support_y {len(y)}; give one of each for every example")
        device = self.algorithm.device
        return Adapted(self.algorithm, reading, x.to(device), y.to(device), classes, method)

    def check_classes(self, labels: list[Any], method: Method = "learned") -> list[Any]:
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
        if len(classes) != ways and method == "learned" and not self.algorithm.any_ways:
            raise InputError(
                f"{self.name} is of {type(self.algorithm).__name__} with a learned head of {ways} classes, and the support set "
                f"has {len(classes)}; give {ways}, another method, or a checkpoint without such a head, for example of ProtoNet"
            )
        return classes


def labels_of(values: Any, what: str) -> list[Any]:
    """Labels as Python's own values, of which equal ones are one class."""
    if isinstance(values, Tensor | np.ndarray) and values.ndim != 1:
        shape = ", ".join(map(str, values.shape))
        raise InputError(f"{what} has shape ({shape}); give one label for each example, of shape (rows,)")
    try:
        labels = [label.item() if isinstance(label, Tensor | np.generic) else label for label in values]
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{what} is no list of labels ({error}); give one label for each example") from error
    if nans := sum(isinstance(label, float) and isnan(label) for label in labels):
        raise InputError(f"{what} has {nans} labels that are not a number; remove their rows")
    return labels
