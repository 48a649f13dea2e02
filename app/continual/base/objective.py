"""What a method minimises and is scored by: the data decide it, whatever the method does about forgetting."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional


class Objective(ABC):
    """A loss that is minus a log-likelihood, up to a constant, and the score that people read.

    Attributes:
        has_classes: whether outputs compete, for one class.
    """

    has_classes: ClassVar[bool]

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Of outputs of shape (rows, outputs): the mean over the rows, their sum, or each ("none")."""

    @abstractmethod
    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Of each row, of shape (rows,)."""

    @abstractmethod
    def parameters(self, outputs: Tensor) -> Tensor:
        """Those of the distribution of y of which the loss is minus the log-density."""

    @abstractmethod
    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of y for each row from that distribution, on the CPU."""


class CrossEntropy(Objective):
    """Of labels, of shape (rows,); the score is whether the largest output is that of the label."""

    has_classes = True

    def loss(self, outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return functional.cross_entropy(outputs, y, reduction=reduction)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.argmax(1) == y

    def parameters(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1).nan_to_num(1)  # a run that diverged shows in its loss

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(parameters, 1, generator=generator)[:, 0]


class SquaredError(Objective):
    """Of targets, of shape (rows, outputs), a mean over the outputs; the score is the same.

    It is minus the log-density of a normal distribution around the outputs with a variance of half their number.
    """

    has_classes = False

    def loss(self, outputs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        rows = functional.mse_loss(outputs, y.to(outputs), reduction="none").mean(-1)
        return {"none": lambda: rows, "sum": rows.sum, "mean": rows.mean}[reduction]()

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.loss(outputs, y, "none").double()

    def parameters(self, outputs: Tensor) -> Tensor:
        return outputs

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(parameters.shape, generator=generator, dtype=parameters.dtype)
        return parameters + (parameters.shape[-1] / 2) ** 0.5 * noise


OBJECTIVES: dict[str, Objective] = {"classification": CrossEntropy(), "regression": SquaredError()}
