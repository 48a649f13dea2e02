"""What the algorithms share that compare examples by the features of one embedding network."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from app.backbones import BackboneCallable
from app.backbones.rows import Rows
from app.inner_loop.params import Params
from app.learners.stacked_algorithm import StackedAlgorithm


class EmbeddingAlgorithm(StackedAlgorithm):
    """Base of the algorithms that fit a head to the features of the support set: a subclass writes the head.

    The images of all tasks are encoded in one batch. In training, support set and queries of a task are normalised together, by
    the task's own statistics; in evaluation by running statistics, or, transductively, as in training.

    Args:
        transductive: support set and queries of a test task are normalised together; else by the running statistics of training.
    """

    task_types = ("classification",)
    any_ways = True

    def __init__(self, transductive: bool = False, **kwargs):
        super().__init__(transductive=transductive, **kwargs)

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        return self.with_running_statistics(backbone(self.input_shape, None))

    @abstractmethod
    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Any:
        """Whatever the head derives from the support sets.

        Args:
            params: all meta-parameters.
            features: of the support sets, of shape (tasks, rows, *features).
            labels: of shape (tasks, rows).
        """

    @abstractmethod
    def head_outputs(self, params: Params, head: Any, features: Tensor) -> Tensor:
        """Logits of the queries, of shape (tasks, queries, ways)."""

    @property
    def ways(self) -> int:
        """Classes of the tasks at hand."""
        return self.train_output_size if self.training else self.output_size

    def one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """Labels of shape (tasks, rows) as (tasks, rows, ways), in the dtype of `like`."""
        return (labels[..., None] == torch.arange(self.ways, device=labels.device)).to(like.dtype)

    def full_precision(self) -> torch.autocast:
        """Inside, matrix products are in the precision of their factors, whatever surrounds them."""
        return torch.autocast(self.device.type, enabled=False)

    def embed(self, params: Params, images: Tensor, first_episode: int = 0) -> Tensor:
        """Features of images of shape (tasks, rows, *input), of shape (tasks, rows, *features)."""
        with Rows(num_tasks=len(images), generators=self.generators(len(images), first_episode)):
            return self.network(self.net_params(params), images.flatten(0, 1)).unflatten(0, (len(images), -1))

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        if self._encodes_together:
            return support_x, support_y
        return self.fit_head(params, self.embed(params, support_x, first_episode), support_y)

    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor, first_episode: int = 0) -> Tensor:
        if not self._encodes_together:
            return self.head_outputs(params, adapted, self.embed(params, query_x, first_episode))
        support_x, support_y = adapted
        features = self.embed(params, torch.cat([support_x, query_x], 1), first_episode)
        support, queries = features.split([support_x.shape[1], query_x.shape[1]], 1)
        return self.head_outputs(params, self.fit_head(params, support, support_y), queries)

    @property
    def _encodes_together(self) -> bool:
        return self.training or self.transductive
