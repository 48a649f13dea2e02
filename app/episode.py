"""What a batch is."""

from typing import NamedTuple

from torch import Tensor


class Episode(NamedTuple):
    """The data of one task, or of a stack of tasks with a leading task axis.

    Attributes:
        support_x: inputs of the support set, of shape (ways * shots, *input), class after class.
        support_y: labels in 0..ways-1, of shape (ways * shots,), or regression targets, of shape (shots, *output); for algorithms
            with `global_labels`, those of training tasks number all training classes.
        query_x: inputs of the query set, of shape (ways * queries, *input).
        query_y: labels or targets of the query set.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
