"""The numbers of a method that a person sets, and that can be meta-learned."""

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor


class Range(NamedTuple):
    """Where a number must be, between two others; what is learned of it can be any number.

    Attributes:
        lower: 0.
        upper: 1, or infinity.
    """

    lower: float = 0.0
    upper: float = inf

    @property
    def words(self) -> str:
        """For a message."""
        return "above 0" if self.upper == inf else f"between {self.lower:g} and {self.upper:g}"

    def holds(self, value: float) -> bool:
        """Whether a number is within, not at an end."""
        return self.lower < value < self.upper

    def free(self, value: Tensor) -> Tensor:
        """The logarithm, or the logit."""
        return value.log() if self.upper == inf else torch.logit(value)

    def value(self, free: Tensor) -> Tensor:
        """The number of which this is the logarithm or the logit."""
        return free.exp() if self.upper == inf else free.sigmoid()


ABOVE_ZERO, SHARE = Range(), Range(0.0, 1.0)
