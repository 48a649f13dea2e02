"""Online-aware meta-learning."""

from typing import Any

import torch
from torch import Tensor, nn

from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm
from app.continual.meta_trained.deployment import one_hot
from app.errors import check_finite
from app.inner_loop.params import Params


class OML(DeployedAlgorithm):
    """Learns features on which gradient descent, image after image, does not forget (OML, Javed and White 2019).

    In training the head of all training classes takes one step of gradient descent for each image of the support set, in its
    order, and the outer loss is that of the query set after the last one. The rows of the head that belong to the classes of the
    trajectory are drawn anew before it, once. Features and initial head are meta-learned, as in the authors' program.

    Args:
        inner_lr: step size of the inner loop.
        first_order: the outer gradient ignores how the inner gradients depend on features and head.
        learns_head: the initial head is meta-learned as well; false for the paper's algorithm 2.
    """

    global_labels = True

    def __init__(self, inner_lr: float = 0.03, first_order: bool = False, learns_head: bool = True, **kwargs):
        super().__init__(**kwargs)
        check_finite("model", inner_lr=inner_lr)
        self.inner_lr, self.first_order, self.learns_head = inner_lr, first_order, learns_head
        self.head = nn.Linear(self.net.num_features, self.train_output_size)
        nn.init.kaiming_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        if not self.training:
            return super().adapt_tasks(params, support_x, support_y, first_episode)
        features = self.encode(params, support_x, first_episode)
        with self.full_precision():
            heads = self.initial_heads(params, features, support_y, first_episode)
            return online_sgd(heads, features, support_y, self.inner_lr, self.first_order)

    def initial_heads(self, params: Params, features: Tensor, labels: Tensor, first_episode: int) -> Tensor:
        """The meta-learned head with new rows for the classes of each task, of shape (tasks, classes, features + 1)."""
        weight, bias = params["head.weight"], params["head.bias"]
        if not self.learns_head:
            weight, bias = weight.detach(), bias.detach()
        belongs = one_hot(labels, len(weight), features)
        row = belongs.argmax(1)[..., None]  # the first image of each class
        fresh = self.fresh_heads(features, labels.shape[1], first_episode)[..., :-1]
        rows = torch.where(belongs.any(1)[..., None], fresh.take_along_dim(row, 1), weight)
        return torch.cat([rows, bias[:, None].expand(len(rows), -1, 1)], -1)

    def describe_algorithm(self) -> dict[str, Any]:
        return {**super().describe_algorithm(), "order": 1 if self.first_order else 2}


def online_sgd(heads: Tensor, features: Tensor, labels: Tensor, lr: float, first_order: bool = False) -> Tensor:
    """Linear heads after a step of gradient descent on the cross-entropy of each row, one after the other.

    A step adds a multiple of the row's features, the error of its prediction: so products of features tell what each row's logits
    are at its turn, and no head in between is ever made.

    Args:
        heads: of shape (tasks, classes, features).
        features: of shape (tasks, rows, features).
        labels: of shape (tasks, rows).
        lr: step size.
        first_order: the steps are constants to the outer gradient.
    """
    steps = features.detach() if first_order else features
    logits, products = steps @ (heads.detach() if first_order else heads).mT, steps @ steps.mT
    targets = one_hot(labels, heads.shape[1], logits)
    errors = torch.zeros_like(logits[:, :0])
    for row in range(features.shape[1]):
        now = logits[:, row] - lr * (products[:, row, None, :row] @ errors)[:, 0]
        errors = torch.cat([errors, (now.softmax(-1) - targets[:, row])[:, None]], 1)
    return heads - lr * errors.mT @ steps
