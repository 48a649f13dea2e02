"""Where the inner loop starts with the head of a network: at learned weights, or at what any number of classes can have."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from app.inner_loop.params import Params
from app.scores.losses import widened

HeadStartName = Literal["learned", "repeated", "prototypes"]


class HeadStart:
    """A vector and a bias for each output, all of them learned (MAML); the base of those for any number of classes.

    Attributes:
        any_ways: whether a task may have any number of classes.
        outputs: of the network that is built, null for as many as a task has.
    """

    any_ways = False
    outputs: int | None = None

    def settle(self, head: nn.Module) -> None:
        """Leaves those of the head's weights to be learned that the start is made of."""

    def weights(self, head: Params, ways: int, features: Callable[[], Tensor], labels: Tensor) -> Params:
        """The head before the first step, by the names of its weights; differentiable.

        Args:
            head: what the outer loop learns of it.
            ways: classes of the task.
            features: gives those of the support set, of shape (rows, features).
            labels: of the support set, of shape (rows,).
        """
        return head


class RepeatedVector(HeadStart):
    """One learned vector, the same for each class (Ye and Chao 2022); the biases start at 0.

    A bias that all classes share shifts all logits alike, which the softmax ignores: it is not learned.
    """

    any_ways, outputs = True, 1

    def settle(self, head: nn.Module) -> None:
        _not_learned(head, "bias")

    def weights(self, head: Params, ways: int, features: Callable[[], Tensor], labels: Tensor) -> Params:
        vector = head["weight"]
        return {"weight": vector.expand(ways, -1), "bias": vector.new_zeros(ways)}


class Prototypes(HeadStart):
    """For each class twice the mean of its features, and minus the mean's squared norm (Triantafillou et al. 2020).

    The logits are those of a prototypical network: minus the squared distances, but for a term that all classes share.
    """

    any_ways, outputs = True, 1

    def settle(self, head: nn.Module) -> None:
        _not_learned(head, "weight", "bias")

    def weights(self, head: Params, ways: int, features: Callable[[], Tensor], labels: Tensor) -> Params:
        rows = widened(features())
        members = (labels[:, None] == torch.arange(ways, device=labels.device)).to(rows)
        means = members.mT @ rows / members.sum(0)[:, None]
        return {"weight": 2 * means, "bias": -means.square().sum(1)}


HEAD_STARTS: dict[HeadStartName, HeadStart] = {
    "learned": HeadStart(),
    "repeated": RepeatedVector(),
    "prototypes": Prototypes(),
}


def _not_learned(head: nn.Module, *names: str) -> None:
    """In place of these weights of one output the head gets what the inner loop adapts, which no checkpoint holds."""
    for name in names:
        size = torch.zeros_like(getattr(head, name).data)
        delattr(head, name)
        head.register_buffer(name, size, persistent=False)
