"""ProtoMAML."""

from app.algorithms.optimisation_based.head_starts import HeadStartName
from app.algorithms.optimisation_based.maml import MAML


class ProtoMAML(MAML):
    """MAML whose head starts at the prototypes of the task, as a prototypical network has it (Triantafillou et al. 2020).

    The outer gradient passes through the prototypes, also where it is first-order. Any number of classes can be told apart. Other
    algorithms than MAML start with such a head by `head_start` prototypes.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training.
        head_start: of the inner loop.
    """

    task_types = ("classification",)

    def __init__(self, inner_lr: float = 0.1, inner_steps: int = 1, head_start: HeadStartName = "prototypes", **kwargs):
        super().__init__(inner_lr=inner_lr, inner_steps=inner_steps, head_start=head_start, **kwargs)
