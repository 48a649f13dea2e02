"""Matching Networks."""

from math import isfinite
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.protonet import squared_distances
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.scores.losses import widened


class MatchingNet(EmbeddingAlgorithm):
    """Classifies by attention over the support set: a class has the attention of its examples (Vinyals et al. 2016).

    The outputs are the logarithms of the classes' probabilities. With full context embeddings an example's features depend on
    the whole support set, which has an order then: class after class, the classes in the random order of their labels.

    Args:
        distance: the attention is the softmax over the support set of the scaled cosine, or of minus the squared distance (l2).
        scale: of the cosine, whose range of -1 to 1 leaves the softmax flat; the paper's formula has 1.
        full_context: embeds support set and queries by LSTMs in the context of the whole support set (FCE).
        read_steps: how often a query reads the support set in full context embeddings, 1 or more.
    """

    def __init__(
        self,
        distance: Literal["cosine", "l2"] = "cosine",
        scale: float = 10.0,
        full_context: bool = False,
        read_steps: int = 3,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not (isfinite(scale) and scale > 0):
            raise InputError(f"--model.scale is {scale}; give a number above 0")
        check_at_least(1, "model", read_steps=read_steps)
        self.distance, self.scale, self.full_context = distance, scale, full_context
        if full_context:
            self.support_context = SupportContext(self.net.num_features)
            self.query_context = QueryContext(self.net.num_features, read_steps)

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The embedded support sets, of shape (tasks, rows, features), and their labels."""
        features = widened(features)
        if self.full_context:
            features = self.call_module("support_context", params, features)
        return features, labels

    def head_outputs(self, params: Params, head: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
        support, labels = head
        features = widened(features)
        if self.full_context:
            features = self.call_module("query_context", params, features, support)
        if self.distance == "cosine":
            similarity = self.scale * F.normalize(features, dim=-1) @ F.normalize(support, dim=-1).mT
        else:
            similarity = -squared_distances(features, support)
        attention = similarity.log_softmax(-1)
        members = self.one_hot(labels, attention)[:, None] > 0  # (tasks, 1, rows, ways)
        return attention[..., None].masked_fill(~members, -torch.inf).logsumexp(2)


class SupportContext(nn.Module):
    """Reads the support set forwards and backwards: the paper's g (appendix A.2).

    Of cells, since `nn.LSTM` keeps its weights where `functional_call` does not replace them.

    Args:
        num_features: of the embedding, and units of each direction.
    """

    def __init__(self, num_features: int):
        super().__init__()
        self.ahead = nn.LSTMCell(num_features, num_features)
        self.back = nn.LSTMCell(num_features, num_features)

    def forward(self, support: Tensor) -> Tensor:
        """Support sets of shape (tasks, rows, features), each row with what both directions make of it added."""
        return support + self._read(self.ahead, support) + self._read(self.back, support.flip(1)).flip(1)

    def _read(self, cell: nn.LSTMCell, rows: Tensor) -> Tensor:
        states = [None]
        for row in rows.unbind(1):
            states.append(cell(row, states[-1]))
        return torch.stack([hidden for hidden, _ in states[1:]], 1)


class QueryContext(nn.Module):
    """Reads the support set by attention, several times, alone for each query: the paper's f (appendix A.1).

    Args:
        num_features: of the embedding.
        steps: reads.
    """

    def __init__(self, num_features: int, steps: int):
        super().__init__()
        # What was read comes with the input instead of the hidden state, which for a linear map is the same.
        self.cell = nn.LSTMCell(2 * num_features, num_features)
        self.steps = steps

    def forward(self, queries: Tensor, support: Tensor) -> Tensor:
        """Queries of shape (tasks, queries, features) in the context of support sets of shape (tasks, rows, features)."""
        hidden, memory = queries, torch.zeros_like(queries).flatten(0, 1)
        for _ in range(self.steps):
            read = (hidden @ support.mT).softmax(-1) @ support
            inputs = torch.cat([queries, read], -1).flatten(0, 1)
            output, memory = self.cell(inputs, (hidden.flatten(0, 1), memory))
            hidden = output.view_as(queries) + queries
        return hidden
