"""The conditional neural process."""

import torch
from torch import Tensor, nn

from app.algorithms.model_based.neural_process import NeuralProcess
from app.algorithms.model_based.set_networks import Decoder, PoolingEncoder
from app.errors import check_at_least
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums


class CNP(KeepsSums, NeuralProcess):
    """A mean over the context points is all that a prediction knows of them (Garnelo et al. 2018, "Conditional NPs").

    Two encoders, as in the code of the TNP paper, so that it has as many weights as NP.

    Args:
        hidden_size: units of every layer, and of each representation.
        encoder_depth: layers before the mean over the context.
        pooled_depth: layers after it.
        decoder_depth: layers of the decoder.
    """

    def __init__(self, hidden_size: int = 128, encoder_depth: int = 4, pooled_depth: int = 2, decoder_depth: int = 3, **kwargs):
        check_at_least(1, "model", hidden_size=hidden_size, encoder_depth=encoder_depth, pooled_depth=pooled_depth)
        check_at_least(2, "model", decoder_depth=decoder_depth)

        def build(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            encoders = (
                PoolingEncoder(input_shape[0] + output_size, hidden_size, hidden_size, encoder_depth, pooled_depth)
                for _ in range(2)
            )
            decoder = Decoder(2 * hidden_size + input_shape[0], hidden_size, output_size, decoder_depth)
            return nn.ModuleDict(dict(zip(("encoder", "second_encoder", "decoder"), (*encoders, decoder), strict=True)))

        super().__init__(backbone=build, **kwargs)

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Tensor:
        points = torch.cat([support_x, support_y], -1)
        return torch.cat([self.part(params, name, points) for name in ("encoder", "second_encoder")], -1)

    def predict_tasks(self, params: Params, adapted: Tensor, query_x: Tensor, first_episode: int = 0) -> Tensor:
        return self.part(params, "decoder", adapted[:, None], query_x)

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        points = torch.cat([x, y], -1)
        return torch.cat([self.part(params, f"{name}.points", points) for name in ("encoder", "second_encoder")], -1)

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Tensor:
        means = (sums / counts).to(next(iter(params.values()))).chunk(2, -1)
        pooled = zip(("encoder", "second_encoder"), means, strict=True)
        return torch.cat([self.part(params, f"{name}.pooled", mean)[0] for name, mean in pooled], -1)
