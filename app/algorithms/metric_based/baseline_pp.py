"""The baseline of few-shot classification with a cosine head."""

from math import isfinite

import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.metric_based.baseline import Baseline
from app.errors import InputError
from app.inner_loop.params import Params

MANY_CLASSES = 200


class BaselinePP(Baseline):
    """Baseline++: the heads compare features with a learned vector of each class by the cosine (Chen et al. 2019, section 3.2).

    As in the authors' program a class has a learned factor of its cosine, too, which starts as the norm of its vector. A whole
    support set a step, the authors' step size of 0.01 leaves these heads half fitted after 100 steps.

    Args:
        inner_lr: step size of the head's gradient descent.
        scale: of the logits; null for the authors' choice, 2 of a head with up to 200 classes and 10 of a larger one.
    """

    has_bias = False

    def __init__(self, inner_lr: float = 0.1, scale: float | None = None, **kwargs):
        super().__init__(inner_lr=inner_lr, **kwargs)
        if scale is not None and not (isfinite(scale) and scale > 0):
            raise InputError(f"--model.scale is {scale}; give a number above 0, or null")
        self.scale = scale

        self.head = CosineHead(self.head.weight)

    def logits(self, head: Params, features: Tensor) -> Tensor:
        vectors = head["weight"]
        scale = self.scale or (2.0 if vectors.shape[-2] <= MANY_CLASSES else 10.0)
        cosines = F.normalize(features, dim=-1) @ F.normalize(vectors, dim=-1).mT
        return scale * head["norm"][..., None, :] * cosines

    def initial_heads(self, features: Tensor) -> Params:
        heads = super().initial_heads(features)
        return heads | {"norm": heads["weight"].norm(dim=-1)}


class CosineHead(nn.Module):
    """A vector of each class and the factor of its cosine.

    Args:
        weight: the vectors at the start, of shape (classes, features).
    """

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight, self.norm = weight, nn.Parameter(weight.detach().norm(dim=-1))
