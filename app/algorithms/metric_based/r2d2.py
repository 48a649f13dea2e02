"""R2-D2."""

from math import isfinite, log

import torch
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.ridge_regression import ridge_regression
from app.errors import InputError
from app.inner_loop.params import Params
from app.scores.losses import widened


class R2D2(EmbeddingAlgorithm):
    """Classifies by the ridge regression of one-hot labels on the support features (Bertinetto et al. 2019, section 3.2).

    The penalty lambda and the scale alpha of the logits are learned, by their logarithms. The paper's beta is left out: it
    shifts all logits of a query alike, which the softmax ignores.

    Args:
        initial_penalty: lambda at the start.
        initial_scale: alpha at the start; the outputs of the regression lie between 0 and 1, where the softmax is flat.
    """

    def __init__(self, initial_penalty: float = 1.0, initial_scale: float = 10.0, **kwargs):
        super().__init__(**kwargs)
        for option, value in (("initial_penalty", initial_penalty), ("initial_scale", initial_scale)):
            if not (isfinite(value) and value > 0):
                raise InputError(f"--model.{option} is {value}; give a number above 0")
        self.log_penalty = nn.Parameter(torch.tensor(log(initial_penalty)))
        self.log_scale = nn.Parameter(torch.tensor(log(initial_scale)))

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Tensor:
        """Weights of the linear classifier, of shape (tasks, features, ways)."""
        features = widened(features)
        with self.full_precision():
            return ridge_regression(features, self.one_hot(labels, features), params["log_penalty"].exp())

    def head_outputs(self, params: Params, head: Tensor, features: Tensor) -> Tensor:
        with self.full_precision():
            return params["log_scale"].exp() * widened(features) @ head
