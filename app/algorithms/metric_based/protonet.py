"""Prototypical Networks."""

from math import isfinite
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums
from app.scores.losses import widened


class ProtoNet(KeepsSums, EmbeddingAlgorithm):
    """Classifies by the distance to the class means of the support features (Snell, Swersky, Zemel 2017).

    Args:
        distance: squared Euclidean, or cosine.
        scale: of the logits; null for 10 under the cosine, whose range of -1 to 1 leaves the softmax flat, and for 1 under the
            distance, where it stays 1 unless it is learned.
        learns_scale: the scale is learned, from there on (Meta-Baseline, Chen et al. 2021); else it stays.
    """

    def __init__(
        self,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        scale: float | None = None,
        learns_scale: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if scale is None:
            scale = 10.0 if distance == "cosine" else 1.0
        if not (isfinite(scale) and scale > 0):
            raise InputError(f"--model.scale is {scale}; give a number above 0")
        self.distance = distance
        start = torch.tensor(float(scale) if distance == "cosine" or learns_scale else 1.0)
        if learns_scale:
            self.scale = nn.Parameter(start)
        else:
            self.register_buffer("scale", start, persistent=False)

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Tensor:
        """Prototypes, of shape (tasks, ways, features)."""
        return class_means(features, self.one_hot(labels, widened(features)))

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        return widened(self.embed(params, x[None])[0])

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Tensor:
        return sums / counts

    def head_outputs(self, params: Params, head: Tensor, features: Tensor) -> Tensor:
        features, scale = widened(features), params.get("scale", self.scale)
        if self.distance == "cosine":
            return scale * F.normalize(features, dim=-1) @ F.normalize(head, dim=-1).mT
        return -scale * squared_distances(features, head)


def class_means(features: Tensor, members: Tensor) -> Tensor:
    """Means of the classes, of shape (tasks, ways, features).

    Args:
        features: of shape (tasks, rows, features).
        members: one-hot labels, of shape (tasks, rows, ways).
    """
    return members.mT @ widened(features) / members.sum(1)[..., None]


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """Squared Euclidean distances, of shape (..., points, others), of rows of shape (..., points, d) and (..., others, d).

    For a softmax over `others`: what all of them have in common is no matter to it, so the lengths of `points` have no gradient.
    """
    lengths = torch.linalg.vector_norm(points.detach(), dim=-1).square()  # `vecdot` writes all products down first
    other_lengths = torch.linalg.vecdot(others, others)
    return lengths[..., None] + other_lengths[..., None, :] - 2 * (points @ others.mT)
