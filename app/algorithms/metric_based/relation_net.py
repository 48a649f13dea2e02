"""Relation Networks."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.backbones import BackboneCallable
from app.backbones.conv4 import Conv4, initialise
from app.backbones.rows import Rows
from app.backbones.task_batch_norm import TaskBatchNorm
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.scores.losses import LossName, widened


class RelationNet(EmbeddingAlgorithm):
    """Learns to compare a query's feature map with the sum of a class's support maps (Sung et al. 2018).

    Args:
        backbone: its last feature map is what is compared; null for the paper's Conv4: the first two blocks alone pool, and have
            no padding.
        outer_loss: mse of the scores, from 0 to 1, against one-hot labels (the paper), or cross_entropy of the scores before
            the sigmoid.
        hidden_size: units of the linear layer before a score.
    """

    def __init__(self, backbone: BackboneCallable | None = None, outer_loss: LossName = "mse", hidden_size: int = 8, **kwargs):
        check_at_least(1, "model", hidden_size=hidden_size)
        backbone = backbone or partial(Conv4, downsample="max_pool", num_halvings=2, num_unpadded=2, init="he")
        super().__init__(backbone=backbone, outer_loss=outer_loss, **kwargs)
        self.gives_scores = outer_loss == "mse"
        self.relation = self.with_running_statistics(RelationModule(self.net.map_shape, hidden_size))

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        net = super().build_net(backbone)
        if not hasattr(net, "map_shape"):
            raise InputError(
                f"RelationNet compares feature maps, and --model.backbone {type(net).__name__} has none; choose Conv4 or ResNet12"
            )
        net.body[-1] = nn.Identity()  # the maps, and not the vectors that the backbone makes of them
        return net

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Tensor:
        """The sums of the classes' maps, of shape (tasks, ways, *map)."""
        return torch.einsum("trw,trchs->twchs", self.one_hot(labels, features), features)

    def head_outputs(self, params: Params, head: Tensor, features: Tensor) -> Tensor:
        outputs = self.call_module("relation", params, features, head)
        return outputs.sigmoid() if self.gives_scores else outputs

    def probabilities(self, outputs: Tensor) -> Tensor:
        if not self.gives_scores:
            return super().probabilities(outputs)
        scores = widened(outputs)
        return scores / scores.sum(-1, keepdim=True)


class RelationModule(nn.Module):
    """Scores pairs of maps: two blocks of 3x3 convolution, TaskBatchNorm, ReLU and max-pooling, then two linear layers.

    The pairs of a task are normalised together, as the images of a task are. A map of one pixel is not pooled. The weights start
    as in the authors' program.

    Args:
        map_shape: channels, height and width of one map of a pair.
        hidden_size: units of the first linear layer.
    """

    def __init__(self, map_shape: tuple[int, int, int], hidden_size: int):
        super().__init__()
        channels, height, side = map_shape
        sizes = [(height, side)]
        for _ in range(2):
            sizes.append(tuple(max(1, size // 2) for size in sizes[-1]))
        pools = [nn.MaxPool2d(tuple(min(2, size) for size in map_size)) for map_size in sizes[:2]]
        self.compare = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)
        self.score = nn.Sequential(
            *(TaskBatchNorm(channels), nn.ReLU(), pools[0]),
            *(nn.Conv2d(channels, channels, 3, padding=1, bias=False), TaskBatchNorm(channels), nn.ReLU(), pools[1]),
            *(nn.Flatten(), nn.Linear(channels * sizes[2][0] * sizes[2][1], hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1)),
        )
        initialise(self, "he")

    def forward(self, queries: Tensor, classes: Tensor) -> Tensor:
        """Scores before the sigmoid, of shape (tasks, queries, ways), of maps (tasks, queries, *map) and (tasks, ways, *map)."""
        # A convolution of two maps one behind the other is the sum of a convolution of each: once for every map, not every pair.
        halves = zip((queries, classes), self.compare.weight.chunk(2, 1), strict=True)
        convolved = (F.conv2d(maps.flatten(0, 1), half, padding=1).unflatten(0, maps.shape[:2]) for maps, half in halves)
        of_query, of_class = convolved
        pairs = of_query[:, :, None] + of_class[:, None]
        with Rows(num_tasks=len(queries)):
            return self.score(pairs.flatten(0, 2)).view(pairs.shape[:3])
