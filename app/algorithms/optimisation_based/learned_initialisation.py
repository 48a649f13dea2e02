"""What the methods share that learn where the inner loop starts."""

from abc import abstractmethod
from typing import Literal

from app.algorithms.optimisation_based.unrolled_algorithm import UnrolledAlgorithm
from app.inner_loop.params import Params


class LearnedInitialisation(UnrolledAlgorithm):
    """Base of MAML and of those that learn the inner loop's rule as well: the adapted weights are the network's, or a part.

    Args:
        adapted: the weights that the inner loop changes: all (MAML), the head (ANIL, Raghu et al. 2020) or the body (BOIL, Oh et
            al. 2021).
    """

    @abstractmethod  # the rule of the inner loop, a subclass has to say
    def __init__(self, adapted: Literal["all", "head", "body"] = "all", **kwargs):
        super().__init__(**kwargs)
        self.adapted = adapted

    def adapted_weights(self) -> Params:
        weights = dict(self.net.named_parameters())
        if self.adapted == "all":
            return weights
        return {name: weight for name, weight in weights.items() if name.startswith("head.") == (self.adapted == "head")}

    @property
    def body_is_fixed(self) -> bool:
        return self.adapted == "head"
