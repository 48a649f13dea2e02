"""Attention between sets, as matrix products: deterministic on every device, unlike the fused kernels' backward passes."""

from torch import Tensor, nn

from app.errors import InputError


def attend(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int, scale: float) -> Tensor:
    """Softmax attention of shape (tasks, queries, width), head by head over slices of the last axis.

    Args:
        queries: of shape (tasks, queries, width).
        keys: of shape (tasks, points, width).
        values: of shape (tasks, points, width).
        num_heads: divides the width.
        scale: of the inner products.
    """
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    weights = (scale * q @ k.transpose(-1, -2)).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


def check_heads(width: int, num_heads: int, option: str) -> None:
    """Raises an InputError where the heads do not share the width equally."""
    if num_heads < 1 or width % num_heads:
        raise InputError(f"--model.num_heads {num_heads} does not divide --model.{option} {width}; choose a divisor")


class AttentionBlock(nn.Module):
    """Multihead attention block of the Set Transformer (Lee et al. 2019), in the form of the TNP paper's code.

    Args:
        width: of inputs and outputs.
        num_heads: divides the width.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads, self.scale = num_heads, width**-0.5
        self.queries, self.keys, self.values = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm, self.out_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = self.queries(queries)
        attended = attend(queries, self.keys(keys), self.values(values), self.num_heads, self.scale)
        x = self.norm(queries + attended)
        return self.out_norm(x + self.out(x).relu())


class SelfAttention(AttentionBlock):
    """An attention block in which a set attends to itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x)


class TransformerLayer(nn.Module):
    """Encoder layer of Vaswani et al. 2017, norms after the sums, whose tokens attend to a set of their own choice.

    Args:
        width: of the tokens.
        num_heads: divides the width.
        feedforward_size: units of the hidden layer.
    """

    def __init__(self, width: int, num_heads: int, feedforward_size: int):
        super().__init__()
        self.num_heads, self.scale = num_heads, (width // num_heads) ** -0.5
        self.queries, self.values, self.attended = (nn.Linear(width, width) for _ in range(3))
        # A bias here would change nothing: softmax ignores it, and its gradient, pure rounding, Adam turns into steps.
        self.keys = nn.Linear(width, width, bias=False)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward_size), nn.ReLU(), nn.Linear(feedforward_size, width))
        self.norm, self.out_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        keys, values = self.keys(context), self.values(context)
        tokens = self.norm(tokens + self.attended(attend(self.queries(tokens), keys, values, self.num_heads, self.scale)))
        return self.out_norm(tokens + self.feedforward(tokens))
