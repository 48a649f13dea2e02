"""MetaOptNet."""

from math import isfinite
from typing import Literal

import torch
from torch import Tensor, nn

from app.embedding_algorithm import EmbeddingAlgorithm
from app.errors import InputError
from app.losses import widened
from app.params import Params
from app.ridge_regression import ridge_regression
from app.svm import svm_dual


class MetaOptNet(EmbeddingAlgorithm):
    """Classifies by a convex learner fitted to the support features, and learns through its optimum (Lee et al. 2019).

    As in the authors' program the scale of the logits is learned, and the kernel of the support vector machine has the
    identity added, which keeps the problem strictly convex whatever the features are.

    Args:
        head: the multi-class support vector machine of Crammer and Singer (2001), or ridge regression of one-hot labels.
        svm_penalty: bound C of the dual variables.
        ridge_penalty: lambda of the ridge regression.
    """

    def __init__(self, head: Literal["svm", "ridge"] = "svm", svm_penalty: float = 0.1, ridge_penalty: float = 50.0, **kwargs):
        super().__init__(**kwargs)
        for option, value in (("svm_penalty", svm_penalty), ("ridge_penalty", ridge_penalty)):
            if not (isfinite(value) and value > 0):
                raise InputError(f"--model.{option} is {value}; give a number above 0")
        self.head, self.svm_penalty, self.ridge_penalty = head, svm_penalty, ridge_penalty
        self.log_scale = nn.Parameter(torch.zeros(()))

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
            return params["log_scale"].exp() * widened(features) @ head
