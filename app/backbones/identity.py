"""Features as they are."""

from math import prod

import torch
from torch import Tensor, nn

from app.errors import check_above_zero


class Identity(nn.Module):
    """The input times one learned number, then a linear head: for the features of an encoder.

    A method that compares features so learns how sharp its answers are, and nothing else. A method that learns that itself, as
    ProtoNet does with `learns_scale`, needs no such number and is faster without.

    Args:
        input_shape: shape of one input, flattened.
        output_size: outputs of the head; null for none, the network is then an embedding.
        scale: that number at the start; 3 suits squared distances of vectors of length 1. null: the input stays as it is.
    """

    def __init__(self, input_shape: tuple[int, ...], output_size: int | None, scale: float | None = 1.0):
        super().__init__()
        self.num_features = prod(input_shape)
        self.body = nn.Sequential(nn.Flatten())
        if scale is not None:
            check_above_zero("model.backbone", scale=scale)
            self.body.append(Scale(scale))
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Scale(nn.Module):
    """Times a learned number.

    Args:
        start: the number before anything is learned.
    """

    def __init__(self, start: float):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(start)))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x
