"""Learning a stream of images on frozen features: a linear head trained image after image, and the nearest class mean.

The bias of a head is the weight of a last feature that is always 1.
"""

from math import sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.Adam's


def with_constant(features: Tensor) -> Tensor:
    """The features with a last one that is always 1."""
    return F.pad(features, (0, 1), value=1.0)


def fresh_rows(rows: int, num_features: int, generator: torch.Generator) -> Tensor:
    """Rows of a new head, by He et al. (2015): normal of variance 2 / num_features, of shape (rows, num_features), no bias.

    In float32 whatever the precision of the weights: another dtype would be other numbers.
    """
    drawn = torch.randn(rows, num_features, generator=generator, device=generator.device, dtype=torch.float32)
    return sqrt(2 / num_features) * drawn


class RunningHeads(NamedTuple):
    """Linear heads that learn by Adam, image after image, and the moments of their gradients.

    Attributes:
        weights: of shape (streams, rates, classes, features); a head of its own for every learning rate.
        first: running mean of the gradient, of the same shape.
        second: that of its square.
        steps: images that were learned.
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    steps: int

    @classmethod
    def fresh(cls, initial: Tensor, rates: int = 1) -> "RunningHeads":
        """Heads before the first image; `initial` is of shape (streams, classes, features)."""
        heads = initial[:, None].repeat(1, rates, 1, 1)
        return cls(heads, torch.zeros_like(heads), torch.zeros_like(heads), 0)

    @torch.no_grad()
    def after(self, features: Tensor, labels: Tensor, lrs: Tensor) -> "RunningHeads":
        """The heads after one pass over more of each stream.

        Args:
            features: of the images in their order, of shape (streams, images, features).
            labels: of shape (streams, images), below `classes`.
            lrs: learning rates, of shape (streams, rates).
        """
        heads, first, second = (part.clone() for part in self[:3])
        targets = one_hot(labels, heads.shape[2], heads)
        for step in range(features.shape[1]):
            image = features[:, step, None]
            error = (heads @ image[..., None])[..., 0].softmax(-1) - targets[:, step, None]
            gradient = error[..., None] * image[:, :, None]  # of the cross-entropy
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            unbiased = [1 - beta ** (self.steps + step + 1) for beta in BETAS]
            size = second.sqrt().div_(sqrt(unbiased[1])).add_(EPS)
            heads.sub_(first.div(size).mul_((lrs / unbiased[0])[..., None, None]))
        return RunningHeads(heads, first, second, self.steps + features.shape[1])


def deployed_heads(features: Tensor, labels: Tensor, initial: Tensor, lrs: Tensor) -> Tensor:
    """Linear heads after one pass of Adam over each stream, one image at a time (OML's meta-test, Javed and White 2019).

    Every learning rate has a head of its own, of shape (streams, rates, classes, features) in all.

    Args:
        features: of the images in their order, of shape (streams, images, features).
        labels: of shape (streams, images), below `classes`.
        initial: heads before the first image, of shape (streams, classes, features).
        lrs: learning rates, of shape (streams, rates).
    """
    return RunningHeads.fresh(initial, lrs.shape[1]).after(features, labels, lrs).weights


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean features of each class, of shape (streams, classes, features)."""
    members = one_hot(labels, classes, features)
    return members.mT @ features / members.sum(1)[..., None]


def nearest_mean(means: Tensor, features: Tensor) -> Tensor:
    """Minus the squared distances to the means less what all share, of shape (streams, images, classes)."""
    return 2 * features @ means.mT - means.square().sum(-1)[:, None]


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels of shape (streams, images) as (streams, images, classes), without a look at their values."""
    return (labels[..., None] == torch.arange(classes, device=labels.device)).to(like.dtype)
