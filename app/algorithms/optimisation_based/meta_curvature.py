"""Meta-Curvature."""

from typing import Literal

from app.algorithms.optimisation_based.learned_initialisation import LearnedInitialisation
from app.errors import check_finite
from app.inner_loop.step_rules import CurvatureStep, DiagonalCurvatureStep, MetaCurvatureStep, OutputCurvatureStep

RULES: dict[str, type[CurvatureStep]] = {
    "kronecker": MetaCurvatureStep,
    "diagonal_kronecker": DiagonalCurvatureStep,
    "output": OutputCurvatureStep,
}


class MetaCurvature(LearnedInitialisation):
    """MAML whose inner gradients are multiplied by a learned Kronecker product of small matrices (Park and Oliva 2019).

    The matrices have the sizes of a layer's axes: a head on more than some thousand features makes a large one.

    Args:
        inner_lr: step size of the inner loop; the matrices scale it as well.
        inner_steps: gradient steps of the inner loop in training.
        curvature: kronecker for a matrix for each axis of a weight (Meta-Curvature); diagonal_kronecker for a learned step size
            for every weight (Meta-SGD) plus that; output for a positive semidefinite matrix of the outputs of each layer
            (T-nets, Lee and Choi 2018).
    """

    def __init__(
        self,
        inner_lr: float = 0.1,
        inner_steps: int = 1,
        curvature: Literal["kronecker", "diagonal_kronecker", "output"] = "kronecker",
        **kwargs,
    ):
        super().__init__(inner_steps=inner_steps, **kwargs)
        check_finite("model", inner_lr=inner_lr)
        self.step_sizes = RULES[curvature](self.adapted_weights(), inner_lr)
