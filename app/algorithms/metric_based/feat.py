"""FEAT."""

from math import sqrt

import torch
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.protonet import class_means, squared_distances
from app.episode import Episode
from app.errors import InputError, check_above_zero, check_not_negative
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums
from app.learners.meta_algorithm import Metrics
from app.scores.losses import widened


class FEAT(KeepsSums, EmbeddingAlgorithm):
    """Prototypical Networks whose prototypes see each other, by a Transformer over their set (Ye et al. 2020).

    In training all examples of a class are transformed as a set, too, and the examples' own features are to be near the means of
    these sets: the contrastive regulariser. The network is best that of a run of `Baseline`: --model.init_from its checkpoint.

    Args:
        temperature: by which squared distances to the prototypes are divided; 64 and 32 in the authors' program.
        contrastive_weight: of the regulariser's loss; 1 to 0.01 in the authors' program.
        contrastive_temperature: by which its squared distances are divided.
        attention_drop_rate: share of the attention that is dropped in training.
        drop_rate: share of what the attention adds to a prototype that is dropped in training.
    """

    def __init__(
        self,
        temperature: float = 64.0,
        contrastive_weight: float = 1.0,
        contrastive_temperature: float = 16.0,
        attention_drop_rate: float = 0.1,
        drop_rate: float = 0.5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_above_zero("model", temperature=temperature, contrastive_temperature=contrastive_temperature)
        check_not_negative("model", contrastive_weight=contrastive_weight)
        for option, rate in (("attention_drop_rate", attention_drop_rate), ("drop_rate", drop_rate)):
            if not 0 <= rate < 1:
                raise InputError(f"--model.{option} is {rate}; give a number from 0 to below 1")
        self.temperature, self.contrastive_temperature = temperature, contrastive_temperature
        self.contrastive_weight, self.drop_rates = contrastive_weight, (attention_drop_rate, drop_rate)
        self.transformer = SetTransformer(self.net.num_features)

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Tensor:
        """Transformed prototypes, of shape (tasks, ways, features)."""
        return self.transformed(params, class_means(features, self.one_hot(labels, widened(features))))

    def transformed(self, params: Params, sets: Tensor, noise: list[torch.Generator] | None = None) -> Tensor:
        """Sets of shape (tasks, ..., rows, features), transformed; with noise, a generator a task, some of it is dropped."""
        kept = [None, None]
        if noise:
            sizes = ((*sets.shape[1:-1], sets.shape[-2]), sets.shape[1:])
            kept = [_kept(noise, size, rate).to(sets) for size, rate in zip(sizes, self.drop_rates, strict=True)]
        return self.call_module("transformer", params, sets, *kept)

    def head_outputs(self, params: Params, head: Tensor, features: Tensor) -> Tensor:
        return -squared_distances(widened(features), head) / self.temperature

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        if not self.training:
            return super().losses(params, batch, first_episode)
        support, queries = self.embed_both(params, batch.support_x, batch.query_x, first_episode)
        # Numbers of its own: those of the tasks are DropBlock's.
        noise = [g.manual_seed(g.initial_seed() + 1) for g in self.generators(len(support), first_episode)]
        prototypes = self.transformed(params, class_means(support, self.one_hot(batch.support_y, widened(support))), noise)
        losses, metrics = self.loss_and_score(self.head_outputs(params, prototypes, queries), batch.query_y)
        if not self.contrastive_weight:
            return losses, metrics
        rows, labels = widened(torch.cat([support, queries], 1)), torch.cat([batch.support_y, batch.query_y], 1)
        # As many examples of each class, one class after the other: (tasks, ways, rows of a class, features).
        order = labels.argsort(dim=1, stable=True)
        classes = rows.take_along_dim(order[..., None], 1).unflatten(1, (self.ways, -1))
        centres = self.transformed(params, classes, noise).mean(2)
        outputs = -squared_distances(rows, centres) / self.contrastive_temperature
        contrastive, _ = self.loss_and_score(outputs, labels)
        return losses + self.contrastive_weight * contrastive, metrics | {"contrastive_loss": contrastive}

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        return widened(self.embed(params, x[None])[0])

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Tensor:
        means = (sums / counts).to(next(self.transformer.parameters()).dtype)
        return self.transformed(params, means[None])[0]


class SetTransformer(nn.Module):
    """Rows of a set plus what one head of attention reads in it, normalised; the weights start as in the authors' program.

    Args:
        num_features: of a row.
    """

    def __init__(self, num_features: int):
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(num_features, num_features, bias=False) for _ in range(3))
        self.out, self.norm = nn.Linear(num_features, num_features), nn.LayerNorm(num_features)
        for layer in (self.queries, self.keys, self.values):
            nn.init.normal_(layer.weight, std=1 / sqrt(num_features))
        nn.init.xavier_normal_(self.out.weight)

    def forward(self, rows: Tensor, kept_attention: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Of sets of shape (..., rows, features).

        Args:
            rows: the sets.
            kept_attention: what the attention, of shape (..., rows, rows), is multiplied by; null for 1.
            kept: what is read is multiplied by; null for 1.
        """
        scores = self.queries(rows) @ self.keys(rows).mT / sqrt(rows.shape[-1])
        attention = scores.softmax(-1)
        attention = attention if kept_attention is None else attention * kept_attention
        read = self.out(attention @ self.values(rows))
        return self.norm(rows + (read if kept is None else read * kept))


def _kept(noise: list[torch.Generator], size: tuple[int, ...], rate: float) -> Tensor:
    """0 for a share `rate` of the places and what makes up for it for the others, of shape (tasks, *size)."""
    # In float32 whatever the features are: the same places in every precision.
    draws = [torch.rand(size, generator=g, device=g.device, dtype=torch.float32) for g in noise]
    return (torch.stack(draws) >= rate) / (1 - rate)
