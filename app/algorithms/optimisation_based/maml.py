"""Model-agnostic meta-learning."""

from app.algorithms.optimisation_based.learned_initialisation import LearnedInitialisation
from app.inner_loop.step_rules import ConstantStep, StepRule


class MAML(LearnedInitialisation):
    """Learns an initialisation from which gradient steps on a support set generalise (Finn, Abbeel, Levine 2017).

    `first_order` takes the inner gradients as constants (FOMAML).

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
    """

    def __init__(self, inner_lr: float = 0.4, inner_steps: int = 1, eval_inner_lr: float | None = None, **kwargs):
        super().__init__(inner_steps=inner_steps, **kwargs)
        self.step_sizes: StepRule = ConstantStep(inner_lr, eval_inner_lr)
