"""UNICORN-MAML."""

from app.algorithms.optimisation_based.head_starts import HeadStartName
from app.algorithms.optimisation_based.maml import MAML


class UNICORN(MAML):
    """MAML that learns one vector for the head and repeats it for each class, of any number of them (Ye and Chao 2022).

    The classes are alike at the start, so that their order cannot matter. The first step then changes the head alone: give at
    least two. The authors' program is first-order and divides the logits of the queries by 0.5. Other algorithms than MAML start
    with such a head by `head_start` repeated.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training; the paper finds many to be better.
        head_start: of the inner loop.
    """

    task_types = ("classification",)

    def __init__(self, inner_lr: float = 0.1, inner_steps: int = 5, head_start: HeadStartName = "repeated", **kwargs):
        super().__init__(inner_lr=inner_lr, inner_steps=inner_steps, head_start=head_start, **kwargs)
