"""The latent neural process."""

import torch
from torch import Tensor, nn

from app.algorithms.model_based.neural_process import LatentNeuralProcess, latent_gaussian
from app.algorithms.model_based.set_networks import Decoder, PoolingEncoder
from app.errors import check_at_least
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums


class NP(KeepsSums, LatentNeuralProcess):
    """A latent variable makes the predictions of a task one coherent function (Garnelo et al. 2018, "Neural Processes").

    Beside the latent path a deterministic one, as in the code of the TNP paper.

    Args:
        hidden_size: units of every layer, and of the deterministic representation.
        latent_size: dimensions of z.
        encoder_depth: layers before the mean over the context.
        pooled_depth: layers after it.
        decoder_depth: layers of the decoder.
    """

    def __init__(
        self,
        hidden_size: int = 128,
        latent_size: int = 128,
        encoder_depth: int = 4,
        pooled_depth: int = 2,
        decoder_depth: int = 3,
        **kwargs,
    ):
        check_at_least(
            1, "model", hidden_size=hidden_size, latent_size=latent_size, encoder_depth=encoder_depth, pooled_depth=pooled_depth
        )
        check_at_least(2, "model", decoder_depth=decoder_depth)

        def build(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            def encoder(size: int) -> nn.Module:
                return PoolingEncoder(input_shape[0] + output_size, hidden_size, size, encoder_depth, pooled_depth)

            decoded = hidden_size + latent_size + input_shape[0]
            return nn.ModuleDict(
                {
                    "encoder": encoder(hidden_size),
                    "latent_encoder": encoder(2 * latent_size),
                    "decoder": Decoder(decoded, hidden_size, output_size, decoder_depth),
                }
            )

        super().__init__(backbone=build, **kwargs)

    def represent(self, params: Params, xc: Tensor, yc: Tensor) -> Tensor:
        return self.part(params, "encoder", torch.cat([xc, yc], -1))

    def latent(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        return latent_gaussian(self.part(params, "latent_encoder", torch.cat([x, y], -1)))

    def decode(self, params: Params, representation: Tensor, z: Tensor, xt: Tensor) -> Tensor:
        return self.part(params, "decoder", representation[:, None, None], z[:, :, None], xt[:, None])

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        points = torch.cat([x, y], -1)
        return torch.cat([self.part(params, f"{name}.points", points) for name in ("encoder", "latent_encoder")], -1)

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        means = (sums / counts).to(next(iter(params.values()))).chunk(2, -1)
        representation, latent = (
            self.part(params, f"{name}.pooled", mean) for name, mean in zip(("encoder", "latent_encoder"), means, strict=True)
        )
        return representation[0], self.draw(latent_gaussian(latent), self.num_eval_samples, 0)[0]
