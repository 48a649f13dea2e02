"""The attentive neural process."""

import torch
from torch import Tensor, nn

from app.algorithms.model_based.neural_process import LatentNeuralProcess, latent_gaussian
from app.algorithms.model_based.set_networks import Decoder, PoolingEncoder, cross_attention
from app.errors import check_at_least
from app.inner_loop.params import Params


class ANP(LatentNeuralProcess):
    """NP whose targets attend to the context points in the deterministic path (Kim et al. 2019).

    Args:
        hidden_size: units of every layer, and of the deterministic representation.
        latent_size: dimensions of z.
        num_heads: of every attention; divides hidden_size.
        encoder_depth: layers before the points of the context attend to each other.
        key_depth: layers of the network that makes keys and queries of inputs.
        pooled_depth: layers after the mean over the context.
        decoder_depth: layers of the decoder.
    """

    def __init__(
        self,
        hidden_size: int = 128,
        latent_size: int = 128,
        num_heads: int = 8,
        encoder_depth: int = 2,
        key_depth: int = 2,
        pooled_depth: int = 2,
        decoder_depth: int = 3,
        **kwargs,
    ):
        check_at_least(
            1, "model", hidden_size=hidden_size, latent_size=latent_size, encoder_depth=encoder_depth, key_depth=key_depth
        )
        check_at_least(1, "model", pooled_depth=pooled_depth)
        check_at_least(2, "model", decoder_depth=decoder_depth)

        def build(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            input_size, point_size = input_shape[0], input_shape[0] + output_size
            latent = PoolingEncoder(point_size, hidden_size, 2 * latent_size, encoder_depth, pooled_depth, num_heads)
            decoder = Decoder(hidden_size + latent_size + input_size, hidden_size, output_size, decoder_depth)
            return nn.ModuleDict(
                cross_attention(input_size, point_size, hidden_size, num_heads, encoder_depth, key_depth)
                | {"latent_encoder": latent, "decoder": decoder}
            )

        super().__init__(backbone=build, **kwargs)

    def represent(self, params: Params, xc: Tensor, yc: Tensor) -> tuple[Tensor, Tensor]:
        return self.part(params, "inputs", xc), self.part(params, "points", torch.cat([xc, yc], -1))

    def latent(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        return latent_gaussian(self.part(params, "latent_encoder", torch.cat([x, y], -1)))

    def decode(self, params: Params, representation: tuple[Tensor, Tensor], z: Tensor, xt: Tensor) -> Tensor:
        attended = self.part(params, "attention", self.part(params, "inputs", xt), *representation)
        return self.part(params, "decoder", attended[:, None], z[:, :, None], xt[:, None])
