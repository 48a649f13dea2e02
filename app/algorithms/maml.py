"""Model-agnostic meta-learning."""

from collections.abc import Iterator
from math import isfinite
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from app.algorithm import MetaAlgorithm
from app.backbones.task_norm import statistics_from
from app.errors import InputError
from app.inner_loop import Params, detached, gradient_descent
from app.losses import LossName


class FastWeights(NamedTuple):
    """A network fitted to a support set.

    Attributes:
        weights: of the whole backbone, adapted or not.
        support_x: kept for predictions by the support set's statistics (non-transductive); without rows otherwise.
    """

    weights: Params
    support_x: Tensor


class MAML(MetaAlgorithm):
    """Learns an initialisation from which gradient steps on a support set generalise (Finn, Abbeel, Levine 2017).

    `adapted` chooses what the inner loop changes: all weights (MAML), the head (ANIL, Raghu et al. 2020) or the body (BOIL,
    Oh et al. 2021). `first_order` takes the inner gradients as constants (FOMAML).

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        eval_inner_steps: gradient steps at evaluation, null for `inner_steps`.
        adapted: the weights that the inner loop changes.
        first_order: the outer gradient ignores how the inner gradients depend on the initialisation.
        inner_loss: loss of the support set; null for cross_entropy in classification, mse in regression.
        inner_reduction: the support loss is the mean over its rows, or their sum (the papers' formulas).
    """

    def __init__(
        self,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
        eval_inner_lr: float | None = None,
        eval_inner_steps: int | None = None,
        adapted: Literal["all", "head", "body"] = "all",
        first_order: bool = False,
        inner_loss: LossName | None = None,
        inner_reduction: Literal["mean", "sum"] = "mean",
        **kwargs,
    ):
        super().__init__(**kwargs)
        for option, steps in (("inner_steps", inner_steps), ("eval_inner_steps", eval_inner_steps)):
            if steps is not None and steps < 1:
                raise InputError(f"--model.{option} is {steps}; give at least 1")
        for option, lr in (("inner_lr", inner_lr), ("eval_inner_lr", eval_inner_lr)):
            if lr is not None and not isfinite(lr):
                raise InputError(f"--model.{option} is {lr}; give a finite number")
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.eval_inner_lr = inner_lr if eval_inner_lr is None else eval_inner_lr
        self.eval_inner_steps = eval_inner_steps or inner_steps
        self.adapted, self.first_order = adapted, first_order
        self.inner_loss, self.inner_reduction = self.loss_function("inner_loss", inner_loss), inner_reduction

    def adapted_names(self) -> list[str]:
        """Names of the backbone's weights that the inner loop changes."""
        names = [name for name, _ in self.net.named_parameters()]
        if self.adapted == "all":
            return names
        return [name for name in names if name.startswith("head.") == (self.adapted == "head")]

    def step_size(self, params: Params, name: str) -> float | Tensor:
        """Step size of one of the backbone's weights."""
        return self.inner_lr if self.training else self.eval_inner_lr

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        net_params = self.net_params(params)
        adapted = {name: net_params[name] for name in self.adapted_names()}
        frozen = {name: weight for name, weight in net_params.items() if name not in adapted}
        constants = detached(frozen) if self.first_order else frozen
        if self.adapted == "head":  # the features do not change from step to step
            body = {name.removeprefix("body."): weight for name, weight in constants.items()}
            with self.inner_autocast():
                features = functional_call(self.net.body, body, (support_x,))

            def outputs(weights: Params) -> Tensor:
                head = {name.removeprefix("head."): weight for name, weight in weights.items()}
                return functional_call(self.net.head, head, (features,))
        else:

            def outputs(weights: Params) -> Tensor:
                return self.network(constants | weights, support_x)

        def loss(weights: Params) -> Tensor:
            return self.inner_loss(outputs(weights), support_y, reduction=self.inner_reduction)

        num_steps = self.inner_steps if self.training else self.eval_inner_steps
        steps = gradient_descent(loss, adapted, lambda name: self.step_size(params, name), num_steps, self.first_order)
        for _ in range(num_steps + 1):
            with self.inner_autocast():  # around the gradient too: its matrix products are autocast as well
                weights = next(steps)
            yield FastWeights(frozen | weights, self.kept(support_x))

    def kept(self, support_x: Tensor) -> Tensor:
        """What a prediction needs of the support set besides the weights."""
        return support_x[:0] if self.transductive else support_x

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> FastWeights:
        *_, last = self.adaptation(params, support_x, support_y)
        return last

    def predict(self, params: Params, adapted: FastWeights, query_x: Tensor) -> Tensor:
        rows = len(adapted.support_x)
        if not rows:
            return self.network(adapted.weights, query_x)
        with statistics_from(rows):
            return self.network(adapted.weights, torch.cat([adapted.support_x, query_x]))[rows:]
