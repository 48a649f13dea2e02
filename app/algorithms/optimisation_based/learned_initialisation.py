"""What the algorithms share that learn where the inner loop starts."""

from abc import abstractmethod
from typing import Literal

from app.algorithms.optimisation_based.unrolled_algorithm import UnrolledAlgorithm
from app.backbones.task_batch_norm import norm_parameters
from app.inner_loop.params import Params


class LearnedInitialisation(UnrolledAlgorithm):
    """Base of MAML and of those that learn the inner loop's rule as well: the adapted weights are the network's, or a part.

    Args:
        adapted: the weights that the inner loop changes: all (MAML), the head (ANIL, Raghu et al. 2020) or the body (BOIL, Oh et
            al. 2021).
        adapts_norms: whether the inner loop changes the weights and biases of the norms too; in the programs of MAML, MAML++ and
            ALFA it does not, the outer loop alone learns them.
    """

    @abstractmethod  # the rule of the inner loop, a subclass has to say
    def __init__(self, adapted: Literal["all", "head", "body"] = "all", adapts_norms: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.adapted, self.adapts_norms = adapted, adapts_norms

    def adapted_weights(self) -> Params:
        weights = dict(self.net.named_parameters())
        if not self.adapts_norms:
            for name in norm_parameters(self.net):
                del weights[name]
        if self.adapted == "all":
            return weights
        return {name: weight for name, weight in weights.items() if name.startswith("head.") == (self.adapted == "head")}

    @property
    def body_is_fixed(self) -> bool:
        return self.adapted == "head"
