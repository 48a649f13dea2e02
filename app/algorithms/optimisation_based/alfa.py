"""ALFA."""

from app.algorithms.optimisation_based.learned_initialisation import LearnedInitialisation
from app.errors import check_finite
from app.inner_loop.step_rules import GeneratedStep


class ALFA(LearnedInitialisation):
    """MAML whose step sizes and weight decay are generated at every inner step from where the task stands (Baik et al. 2020).

    A small network sees the mean of every weight tensor and of its gradient. What it generates multiplies a step size and a
    decay that are learned for every tensor and step. It starts near the latter alone; the authors' program starts near 0, and
    takes the gradients that the network sees as constants.

    Args:
        inner_lr: step size of the inner loop, at the start.
        inner_steps: gradient steps of the inner loop in training.
        inner_decay: weight decay of the inner loop, at the start; a step takes `inner_lr` times it off the weights.
    """

    def __init__(self, inner_lr: float = 0.1, inner_steps: int = 5, inner_decay: float = 5e-4, **kwargs):
        super().__init__(inner_steps=inner_steps, **kwargs)
        check_finite("model", inner_lr=inner_lr)
        self.step_sizes = GeneratedStep(self.adapted_weights(), inner_lr, inner_decay, inner_steps)
