"""Fully connected networks over the points of a task, as in the code of the TNP paper (Nguyen and Grover 2022)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.model_based.attention import AttentionBlock, SelfAttention, check_heads
from app.algorithms.model_based.gaussian import gaussian


def mlp(input_size: int, hidden_size: int, output_size: int, depth: int) -> nn.Sequential:
    """`depth` linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([input_size, *[hidden_size] * (depth - 1), output_size]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def std_above_a_tenth(spread: Tensor) -> Tensor:
    """Standard deviations of the decoders (Le et al. 2018)."""
    return 0.1 + 0.9 * F.softplus(spread)


class PoolingEncoder(nn.Module):
    """Mean over the points of what one network makes of each, then another network (Garnelo et al. 2018).

    Args:
        input_size: of a point, inputs and targets together.
        hidden_size: units of every layer.
        output_size: of the representation.
        depth: layers before the mean.
        pooled_depth: layers after the mean.
        num_heads: the points attend to each other before the mean, with so many heads; null for no attention.
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, depth: int, pooled_depth: int, num_heads: int | None = None
    ):
        super().__init__()
        attention = [nn.ReLU(), SelfAttention(hidden_size, num_heads)] if num_heads else []
        self.points = nn.Sequential(mlp(input_size, hidden_size, hidden_size, depth), *attention)
        self.pooled = mlp(hidden_size, hidden_size, output_size, pooled_depth)

    def forward(self, points: Tensor) -> Tensor:
        return self.pooled(self.points(points).mean(-2))


class Decoder(nn.Module):
    """From representations and a target's input to the Gaussian of its value.

    Args:
        input_size: of all that is decoded together.
        hidden_size: units of every layer.
        output_size: dimensions of a target.
        depth: layers.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, depth: int):
        super().__init__()
        self.first = nn.Linear(input_size, hidden_size)
        self.others = nn.Sequential(nn.ReLU(), mlp(hidden_size, hidden_size, 2 * output_size, depth - 1))

    def forward(self, *parts: Tensor) -> Tensor:
        # The first layer of all parts side by side, without repeating those that are the same for many targets.
        weights = self.first.weight.split([part.shape[-1] for part in parts], 1)
        hidden = sum(F.linear(part, weight) for part, weight in zip(parts, weights, strict=True)) + self.first.bias
        return gaussian(self.others(hidden), std_above_a_tenth)


def cross_attention(
    input_size: int, point_size: int, hidden_size: int, num_heads: int, depth: int, key_depth: int
) -> dict[str, nn.Module]:
    """The parts by which targets attend to the context: keys and queries of inputs, values of points, attention.

    Args:
        input_size: of an input.
        point_size: of a point, input and target together.
        hidden_size: units of every layer.
        num_heads: divides hidden_size.
        depth: layers of the values before the points attend to each other.
        key_depth: layers of keys and queries.
    """
    check_heads(hidden_size, num_heads, "hidden_size")
    return {
        "inputs": mlp(input_size, hidden_size, hidden_size, key_depth),
        "points": nn.Sequential(mlp(point_size, hidden_size, hidden_size, depth), SelfAttention(hidden_size, num_heads)),
        "attention": AttentionBlock(hidden_size, num_heads),
    }
