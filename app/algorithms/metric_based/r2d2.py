"""R2-D2."""

from math import isfinite, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.ridge_regression import products, ridge_regression, ridge_regression_of_sums
from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums
from app.scores.losses import widened


class R2D2(KeepsSums, EmbeddingAlgorithm):
    """Classifies by the ridge regression of one-hot labels on the support features (Bertinetto et al. 2019, section 3.2).

    As in the authors' program the features have a constant beside them, for a bias that is penalised too, and the error is the
    mean over the support set, so that one penalty is right for any number of shots. The paper's beta is left out: it shifts all
    logits of a query alike, which the softmax ignores.

    Args:
        penalty: lambda, of the mean squared error. It stays at 50 in the authors' program, for larger features than Conv4's.
        learns_penalty: lambda is learned, by its logarithm, from `penalty` on, as the paper has it; else it stays.
        initial_scale: alpha, the learned scale of the logits, at the start; 10 in the authors' program, 0.0001 for mini-ImageNet.
    """

    def __init__(self, penalty: float = 0.1, learns_penalty: bool = True, initial_scale: float = 10.0, **kwargs):
        super().__init__(**kwargs)
        for option, value in (("penalty", penalty), ("initial_scale", initial_scale)):
            if not (isfinite(value) and value > 0):
                raise InputError(f"--model.{option} is {value}; give a number above 0")
        log_penalty = torch.tensor(log(penalty))
        if learns_penalty:
            self.log_penalty = nn.Parameter(log_penalty)
        else:
            self.register_buffer("log_penalty", log_penalty)
        self.scale = nn.Parameter(torch.tensor(float(initial_scale)))

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Tensor:
        """Weights of the linear classifier, of shape (tasks, features + 1, ways); the last are the biases."""
        features = self._with_constant(features)
        penalty = params.get("log_penalty", self.log_penalty).exp() * features.shape[1]
        with self.full_precision():
            return ridge_regression(features, self.one_hot(labels, features), penalty)

    def head_outputs(self, params: Params, head: Tensor, features: Tensor) -> Tensor:
        with self.full_precision():
            return params["scale"] * self._with_constant(features) @ head

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        return products(self._with_constant(self.embed(params, x[None])[0]))

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Tensor:
        return ridge_regression_of_sums(sums, params.get("log_penalty", self.log_penalty).exp().double() * counts.sum())

    @staticmethod
    def _with_constant(features: Tensor) -> Tensor:
        """The features with a last one that is always 1, whose weight is the bias."""
        return F.pad(widened(features), (0, 1), value=1.0)
