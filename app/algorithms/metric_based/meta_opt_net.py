"""MetaOptNet."""

from math import isfinite
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.ridge_regression import products, ridge_regression, ridge_regression_of_sums
from app.algorithms.metric_based.svm import svm_dual
from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums
from app.scores.losses import cross_entropy, widened


class MetaOptNet(KeepsSums, EmbeddingAlgorithm):
    """Classifies by a convex learner fitted to the support features, and learns through its optimum (Lee et al. 2019).

    As in the authors' program the kernel of the support vector machine has the identity added, which keeps the problem strictly
    convex whatever the features are, and the scale of the logits is learned.

    Args:
        head: the multi-class support vector machine of Crammer and Singer (2001), or ridge regression of one-hot labels.
        svm_penalty: bound C of the dual variables.
        ridge_penalty: lambda of the ridge regression.
        initial_scale: of the logits, at the start. 1 in the authors' program, whose optimiser (SGD at 0.1) moves it fast; Adam
            moves it by a thousandth a step, and needs one that is near the end.
        label_smoothing: share of a query's label, 0 to below 1, that its task's other classes get in training, in equal parts.
    """

    def __init__(
        self,
        head: Literal["svm", "ridge"] = "svm",
        svm_penalty: float = 0.1,
        ridge_penalty: float = 50.0,
        initial_scale: float = 10.0,
        label_smoothing: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        numbers = {"svm_penalty": svm_penalty, "ridge_penalty": ridge_penalty, "initial_scale": initial_scale}
        for option, value in numbers.items():
            if not (isfinite(value) and value > 0):
                raise InputError(f"--model.{option} is {value}; give a number above 0")
        self.head, self.svm_penalty, self.ridge_penalty = head, svm_penalty, ridge_penalty
        if not 0 <= label_smoothing < 1:
            raise InputError(f"--model.label_smoothing is {label_smoothing}; give a number from 0 to below 1")
        if label_smoothing and self.outer_loss is not cross_entropy:
            raise InputError("--model.label_smoothing is for --model.outer_loss cross_entropy; leave one of the two out")
        self.label_smoothing = label_smoothing
        if label_smoothing:
            self.outer_loss = self._smoothed_loss
        self.scale = nn.Parameter(torch.tensor(float(initial_scale)))

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Tensor:
        """Weights of the linear classifier, of shape (tasks, features, ways)."""
        features = widened(features)
        targets = self.one_hot(labels, features)
        with self.full_precision():
            if self.head == "ridge":
                return ridge_regression(features, targets, self.ridge_penalty)
            rows = features.double()
            kernel = rows @ rows.mT + torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
            return (rows.mT @ svm_dual(kernel, targets, self.svm_penalty)).to(features.dtype)

    def head_outputs(self, params: Params, head: Tensor, features: Tensor) -> Tensor:
        with self.full_precision():
            return params["scale"] * widened(features) @ head

    @property
    def sums_are_enough(self) -> bool:
        return super().sums_are_enough and self.head == "ridge"

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        return products(widened(self.embed(params, x[None])[0]))

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Tensor:
        return ridge_regression_of_sums(sums, self.ridge_penalty)

    def _smoothed_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, in training against smoothed labels."""
        # torch gives a share to the label's own class too.
        share = self.label_smoothing * self.ways / (self.ways - 1) if self.training else 0.0
        return F.cross_entropy(widened(outputs), labels, label_smoothing=share)
