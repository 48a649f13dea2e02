"""The conditional attentive neural process."""

import torch
from torch import Tensor, nn

from app.algorithms.model_based.neural_process import NeuralProcess
from app.algorithms.model_based.set_networks import Decoder, PoolingEncoder, cross_attention
from app.errors import check_at_least
from app.inner_loop.params import Params


class CANP(NeuralProcess):
    """CNP whose targets attend to the context points (Kim et al. 2019, without the latent variable).

    Beside the attention a mean over the context, as in the code of the TNP paper.

    Args:
        hidden_size: units of every layer, and of each representation.
        num_heads: of every attention; divides hidden_size.
        encoder_depth: layers before the points of the context attend to each other.
        key_depth: layers of the network that makes keys and queries of inputs.
        pooled_depth: layers after the mean over the context.
        decoder_depth: layers of the decoder.
    """

    def __init__(
        self,
        hidden_size: int = 128,
        num_heads: int = 8,
        encoder_depth: int = 2,
        key_depth: int = 2,
        pooled_depth: int = 2,
        decoder_depth: int = 3,
        **kwargs,
    ):
        check_at_least(
            1, "model", hidden_size=hidden_size, encoder_depth=encoder_depth, key_depth=key_depth, pooled_depth=pooled_depth
        )
        check_at_least(2, "model", decoder_depth=decoder_depth)

        def build(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            input_size, point_size = input_shape[0], input_shape[0] + output_size
            return nn.ModuleDict(
                cross_attention(input_size, point_size, hidden_size, num_heads, encoder_depth, key_depth)
                | {
                    "encoder": PoolingEncoder(point_size, hidden_size, hidden_size, encoder_depth, pooled_depth, num_heads),
                    "decoder": Decoder(2 * hidden_size + input_size, hidden_size, output_size, decoder_depth),
                }
            )

        super().__init__(backbone=build, **kwargs)

    def adapt_tasks(
        self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        points = torch.cat([support_x, support_y], -1)
        keys, values = self.part(params, "inputs", support_x), self.part(params, "points", points)
        return keys, values, self.part(params, "encoder", points)

    def predict_tasks(
        self, params: Params, adapted: tuple[Tensor, Tensor, Tensor], query_x: Tensor, first_episode: int = 0
    ) -> Tensor:
        keys, values, pooled = adapted
        attended = self.part(params, "attention", self.part(params, "inputs", query_x), keys, values)
        return self.part(params, "decoder", attended, pooled[:, None], query_x)
