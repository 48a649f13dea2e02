"""What the algorithms share that fit a network to a support set by gradient steps."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from app.backbones.rows import Rows
from app.errors import check_at_least
from app.inner_loop.params import Params
from app.learners.meta_algorithm import MetaAlgorithm
from app.scores.losses import LossName


class FastWeights(NamedTuple):
    """A network fitted to a support set.

    Attributes:
        weights: of the whole backbone, adapted or not.
        support_x: kept for predictions by the support set's statistics (non-transductive); without rows otherwise.
    """

    weights: Params
    support_x: Tensor


class InnerLoopAlgorithm(MetaAlgorithm):
    """Base of the algorithms whose `adaptation` is an inner loop: a subclass says which, and what of it the outer loop learns.

    Args:
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_steps: gradient steps at evaluation, null for `inner_steps`.
        inner_loss: loss of the support set; null for cross_entropy in classification, mse in regression.
        inner_reduction: the support loss is the mean over its rows, or their sum (the papers' formulas).
    """

    def __init__(
        self,
        inner_steps: int = 1,
        eval_inner_steps: int | None = None,
        inner_loss: LossName | None = None,
        inner_reduction: Literal["mean", "sum"] = "mean",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_at_least(1, "model", inner_steps=inner_steps, eval_inner_steps=eval_inner_steps)
        self.inner_steps, self.eval_inner_steps = inner_steps, eval_inner_steps or inner_steps
        self.inner_loss, self.inner_reduction = self.loss_function("inner_loss", inner_loss), inner_reduction

    @abstractmethod
    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        """Yields the network after each step of the inner loop, before the first one first."""

    @property
    def num_inner_steps(self) -> int:
        """Those of training, or those of evaluation."""
        return self.inner_steps if self.training else self.eval_inner_steps

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The support loss."""
        return self.inner_loss(outputs, targets, reduction=self.inner_reduction)

    def kept(self, support_x: Tensor) -> Tensor:
        """What a prediction needs of the support set besides the weights."""
        return support_x[:0] if self.transductive else support_x

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> FastWeights:
        adapted = deque(self.adaptation(params, support_x, support_y), maxlen=1)
        return adapted.pop()

    def predict(self, params: Params, adapted: FastWeights, query_x: Tensor) -> Tensor:
        rows = len(adapted.support_x)
        if not rows:
            return self.network(adapted.weights, query_x)
        with Rows(reference=rows):
            return self.network(adapted.weights, torch.cat([adapted.support_x, query_x]))[rows:]
