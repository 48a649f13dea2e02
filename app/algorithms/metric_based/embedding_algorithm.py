"""What the algorithms share that compare examples by the features of one embedding network."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from app.backbones import BackboneCallable
from app.backbones.rows import Rows
from app.episode import Episode
from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.stacked_algorithm import StackedAlgorithm
from app.lightning_internals import attached_trainer
from datamodules.base.episodic import EpisodicDataModule


class EmbeddingAlgorithm(StackedAlgorithm):
    """Base of the algorithms that fit a head to the features of the support set: a subclass writes the head.

    The images of all tasks are encoded in one batch. In training, support set and queries of a task are normalised together, by
    the task's own statistics; in evaluation by running statistics, or, transductively, as in training.

    Args:
        transductive: support set and queries of a test task are normalised together; else by the running statistics of training.
        norm_statistics: whose statistics norms take in training: those of each task; of all tasks of the step at once; or halves,
            of all support sets at once and of all queries at once, as in MetaOptNet's program. The last two need one process.
    """

    task_types = ("classification",)
    any_ways = True

    def __init__(self, transductive: bool = False, norm_statistics: Literal["task", "step", "halves"] = "task", **kwargs):
        super().__init__(transductive=transductive, **kwargs)
        self.norm_statistics = norm_statistics

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        return self.with_running_statistics(backbone(self.input_shape, None))

    @property
    def pools(self) -> bool:
        """Whether the norms take the statistics of several tasks at once."""
        return self.training and self.norm_statistics != "task"

    def chunks(self, batch: Episode) -> Iterator[Episode]:
        return iter([batch]) if self.pools else super().chunks(batch)

    def check_data(self, data: EpisodicDataModule) -> None:
        super().check_data(data)
        if self.norm_statistics != "task" and self.block_size:
            raise InputError(
                f"--model.norm_statistics {self.norm_statistics} takes the statistics of a whole step, which --model.block_size "
                f"{self.block_size} cuts into blocks; leave one of them out"
            )

    def on_fit_start(self) -> None:
        if self.norm_statistics != "task" and self.trainer.world_size > 1:
            raise InputError(
                f"--model.norm_statistics {self.norm_statistics} takes the statistics of a whole step, of which "
                f"{self.trainer.world_size} processes have a share each; give --trainer.devices 1, or task"
            )

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

    def one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """Labels of shape (tasks, rows) as (tasks, rows, ways), in the dtype of `like`."""
        return (labels[..., None] == torch.arange(self.ways, device=labels.device)).to(like.dtype)

    def full_precision(self) -> torch.autocast:
        """Inside, matrix products are in the precision of their factors, whatever surrounds them."""
        return torch.autocast(self.device.type, enabled=False)

    def rows_of(self, num_tasks: int, first_episode: int = 0) -> Rows:
        """What the network's layers have to know of the rows of these tasks; its noise goes on from one use to the next."""
        trainer = attached_trainer(self)
        step = trainer.datamodule.cursor if self.training and trainer else 0
        noise = self.generators(num_tasks, first_episode)
        return Rows(num_tasks=1 if self.pools else num_tasks, step=step, generators=noise)

    def embed(self, params: Params, images: Tensor, first_episode: int = 0, rows: Rows | None = None) -> Tensor:
        """Features of images of shape (tasks, rows, *input), of shape (tasks, rows, *features)."""
        with rows or self.rows_of(len(images), first_episode):
            return self.network(self.net_params(params), images.flatten(0, 1)).unflatten(0, (len(images), -1))

    def embed_both(self, params: Params, support_x: Tensor, query_x: Tensor, first_episode: int = 0) -> tuple[Tensor, Tensor]:
        """Features of support sets and of queries that are encoded together, each as `embed` gives them."""
        alone = next(self.net.parameters(), None) is None  # nothing is learned or normalised: the rows do not meet
        if alone or (self.training and self.norm_statistics == "halves"):
            rows = self.rows_of(len(support_x), first_episode)
            return self.embed(params, support_x, rows=rows), self.embed(params, query_x, rows=rows)
        features = self.embed(params, torch.cat([support_x, query_x], 1), first_episode)
        return features.split([support_x.shape[1], query_x.shape[1]], 1)

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        if self._encodes_together:
            return support_x, support_y
        return self.fit_head(params, self.embed(params, support_x, first_episode), support_y)

    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor, first_episode: int = 0) -> Tensor:
        if not self._encodes_together:
            return self.head_outputs(params, adapted, self.embed(params, query_x, first_episode))
        support_x, support_y = adapted
        support, queries = self.embed_both(params, support_x, query_x, first_episode)
        return self.head_outputs(params, self.fit_head(params, support, support_y), queries)

    @property
    def _encodes_together(self) -> bool:
        return self.training or self.transductive
