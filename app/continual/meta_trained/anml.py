"""A neuromodulated meta-learner."""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from app.backbones import BackboneCallable, default_backbone
from app.continual.meta_trained.oml import OML
from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.params import Params
from app.inner_loop.step_rules import ConstantStep
from app.scores.losses import widened


class GatedNet(nn.Module):
    """Features of one network, each multiplied by a gate between 0 and 1 that another network computes from the same image.

    Args:
        input_shape: shape of one input.
        output_size: null, it is an embedding.
        network: of the features, null for the default.
        modulator: of the gates, null for one like `network`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: None,
        network: BackboneCallable | None,
        modulator: BackboneCallable | None,
    ):
        super().__init__()
        network = network or default_backbone(input_shape)
        self.network = network(input_shape, output_size)
        self.num_features = self.network.num_features
        self.modulator = (modulator or network)(input_shape, self.num_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) * self.modulator(x).sigmoid()


class Adapted(NamedTuple):
    """What the inner loop made of its weights.

    Attributes:
        network: weights of the prediction network, with a leading task axis.
        heads: weights and bias of the head, of shape (tasks, classes, features + 1).
    """

    network: Params
    heads: Tensor


class ANML(OML):
    """Learns to gate features so that gradient descent changes what the image calls for (ANML, Beaulieu et al. 2020).

    A neuromodulatory network's sigmoid multiplies the features of the prediction network. The inner loop leaves the former as it
    is and changes the latter and the head; at deployment the head alone learns. Both networks are meta-learned.

    Args:
        modulator: the neuromodulatory network, null for one like `backbone`.
        adapted: what the inner loop changes: all of the prediction network and the head (the paper), or the head.
        inner_lr: step size of the inner loop.
        norm: what an image is normalised by. batch, as in the authors' program: in the inner loop and at deployment each channel
            of an image by itself, which is what a batch norm makes of a batch of one image; in the outer loss all queries
            together. instance: each image by itself there too. layer: all channels of an image together, with which features
            are so alike that an inner loop on one class disturbs all others.
    """

    def __init__(
        self,
        backbone: BackboneCallable | None = None,
        modulator: BackboneCallable | None = None,
        adapted: Literal["all", "head"] = "all",
        inner_lr: float = 0.1,
        norm: Literal["batch", "instance", "layer"] = "batch",
        **kwargs,
    ):
        super().__init__(backbone=partial(GatedNet, network=backbone, modulator=modulator), inner_lr=inner_lr, **kwargs)
        self.norms_by_channel, self.outer_batch_norm = norm != "layer", norm == "batch"
        self.adapted, self.step = adapted, ConstantStep(inner_lr)

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        if not self.training or self.adapted == "head":
            return super().adapt_tasks(params, support_x, support_y, first_episode)
        gates, network = self._gates(params, support_x), self.module_params("net.network", params)
        heads = self.initial_heads(params, F.pad(gates, (0, 1)), support_y, first_episode)
        return Adapted(*vmap(self._inner_loop, (None, 0, 0, 0, 0))(network, heads, gates, support_x, support_y))

    def _inner_loop(self, network: Params, heads: Tensor, gates: Tensor, images: Tensor, labels: Tensor) -> tuple[Params, Tensor]:
        if self.first_order:
            gates = gates.detach()

        def loss(weights: Params, shared: tuple, row: int) -> Tensor:
            features = self._features(weights, images[row, None])
            return F.cross_entropy(logits(features * gates[row], weights["heads"]), labels[row, None])

        loop = InnerLoop(loss, self.step, first_order=self.first_order)
        for state in loop.states({**network, "heads": heads}, len(images)):
            fast = dict(state.weights)
        heads = fast.pop("heads")
        return fast, heads

    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor, first_episode: int = 0) -> Tensor:
        if not isinstance(adapted, Adapted):
            return super().predict_tasks(params, adapted, query_x, first_episode)
        features = vmap(partial(self._features, together=self.outer_batch_norm))(adapted.network, query_x)
        return logits(features * self._gates(params, query_x, self.outer_batch_norm), adapted.heads)

    def _features(self, network: Params, images: Tensor, together: bool = False) -> Tensor:
        """Features before the gates; the weights may be among others."""
        own = {name: weight for name, weight in network.items() if name != "heads"}
        with self.inner_autocast(), self.rows(together):
            return widened(functional_call(self.net.network, own, (images,)).flatten(1))

    def _gates(self, params: Params, images: Tensor, together: bool = False) -> Tensor:
        """Gates of images of shape (tasks, rows, *input)."""
        with self.rows(together, len(images)):
            gates = self.part(params, "modulator", images.flatten(0, 1))
        return widened(gates).sigmoid().unflatten(0, images.shape[:2])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        trained = checkpoint.get("config", {}).get("model", {}).get("init_args")
        if trained is not None and "norm" not in trained:  # by a version that had the other one alone
            self.norms_by_channel = False


def logits(features: Tensor, heads: Tensor) -> Tensor:
    """Of heads whose last column is the bias."""
    return features @ heads[..., :-1].mT + heads[..., None, :, -1]
