"""Meta-SGD."""

from math import inf

from app.algorithms.optimisation_based.learned_initialisation import LearnedInitialisation
from app.errors import InputError
from app.inner_loop.step_rules import WeightwiseStep


class MetaSGD(LearnedInitialisation):
    """MAML with a learned step size for every single weight, which may become negative (Li et al. 2017).

    Args:
        step_size_range: the step sizes are drawn uniformly from this range at the start; two equal numbers for a constant.
    """

    def __init__(self, step_size_range: tuple[float, float] = (0.005, 0.1), **kwargs):
        super().__init__(**kwargs)
        low, high = step_size_range
        if not -inf < low <= high < inf:
            raise InputError(f"--model.step_size_range is from {low} to {high}; give two finite numbers, the smaller one first")
        self.step_sizes = WeightwiseStep(self.adapted_weights(), low, high)
