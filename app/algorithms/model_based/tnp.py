"""The transformer neural process with a diagonal covariance."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.model_based.attention import TransformerLayer, check_heads
from app.algorithms.model_based.gaussian import gaussian
from app.algorithms.model_based.neural_process import NeuralProcess
from app.algorithms.model_based.set_networks import mlp
from app.errors import check_at_least
from app.inner_loop.params import Params

LEAST_STD = 1e-4  # data without noise would let the density grow without end


class TNPD(NeuralProcess):
    """TNP-D: a transformer whose tokens, context and targets alike, attend to the context tokens (Nguyen and Grover 2022).

    As in the authors' code a target's token sees itself through the residual connections alone. The context's tokens therefore
    do not depend on the targets: `adapt` computes them once. Training takes the targets alone.

    Args:
        hidden_size: width of the tokens and units of the layers that embed them.
        num_heads: of every attention; divides hidden_size.
        num_layers: of the transformer.
        feedforward_size: units of the hidden layers in the transformer and of the predictor.
        embedding_depth: layers that embed a point.
        std_is_bounded: standard deviations of at least 0.05, as in the paper's image experiments; else their logarithm is
            predicted.
    """

    trains_on_context = False

    def __init__(
        self,
        hidden_size: int = 64,
        num_heads: int = 4,
        num_layers: int = 6,
        feedforward_size: int = 128,
        embedding_depth: int = 4,
        std_is_bounded: bool = False,
        **kwargs,
    ):
        check_at_least(1, "model", hidden_size=hidden_size, num_layers=num_layers, feedforward_size=feedforward_size)
        check_at_least(1, "model", embedding_depth=embedding_depth)
        check_heads(hidden_size, num_heads, "hidden_size")

        def build(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            layers = (TransformerLayer(hidden_size, num_heads, feedforward_size) for _ in range(num_layers))
            return nn.ModuleDict(
                {
                    "embedder": mlp(input_shape[0] + output_size, hidden_size, hidden_size, embedding_depth),
                    "layers": nn.ModuleList(layers),
                    "predictor": mlp(hidden_size, feedforward_size, 2 * output_size, 2),
                }
            )

        super().__init__(backbone=build, **kwargs)
        self.num_layers, self.std_is_bounded = num_layers, std_is_bounded

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Tensor:
        """The context's tokens before each layer, of shape (tasks, layers, points, width)."""
        tokens = [self.part(params, "embedder", torch.cat([support_x, support_y], -1))]
        for layer in range(self.num_layers - 1):
            tokens.append(self.part(params, f"layers.{layer}", tokens[-1], tokens[-1]))
        return torch.stack(tokens, 1)

    def predict_tasks(self, params: Params, adapted: Tensor, query_x: Tensor, first_episode: int = 0) -> Tensor:
        unknown = query_x.new_zeros(*query_x.shape[:-1], self.output_size)
        tokens = self.part(params, "embedder", torch.cat([query_x, unknown], -1))
        for layer, context in enumerate(adapted.unbind(1)):
            tokens = self.part(params, f"layers.{layer}", tokens, context)
        return gaussian(self.part(params, "predictor", tokens), self._std)

    def _std(self, spread: Tensor) -> Tensor:
        return 0.05 + 0.95 * F.softplus(spread) if self.std_is_bounded else LEAST_STD + spread.exp()
