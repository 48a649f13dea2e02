"""The outer step that all meta-learning algorithms share."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from app.episode import Episode
from app.inner_loop.gradient_descent import INNER_GRADIENT_NORM
from app.inner_loop.observation import observing
from app.inner_loop.params import Params
from app.inner_loop.task_stack import stacking
from app.learners.episodic_learner import EpisodicLearner
from app.learners.outcome import Outcome, keep_as_computed, mean_of_blocks, mean_of_processes
from app.lightning_internals import is_logged
from datamodules.base.episodic import EpisodicDataModule

Metrics = dict[str, Tensor]


class OuterStep(EpisodicLearner):
    """Base of the learners whose outer optimiser follows a mean over tasks: a subclass writes `outer_gradient`."""

    @abstractmethod
    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        """The direction against which the outer optimiser steps, and what is logged, each a mean over the tasks."""

    def step_statistics(self) -> dict[str, Tensor]:
        """What the tasks of `outer_gradient` leave for the buffers, to be averaged over all tasks of the outer step."""
        return {}

    def keep_statistics(self, statistics: dict[str, Tensor]) -> None:
        """Brings the buffers up to date, with the means over all tasks of the outer step."""

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.block_size = self.block_size
        if (
            self.block_size and self.trainer.strategy.root_device.type == "cpu"
        ):  # how many threads share a sum decides about its last bits
            torch.set_num_threads(1)

    def on_train_start(self) -> None:
        model = self.trainer.strategy.model
        if self.block_size and isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, keep_as_computed)

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        params, number = dict(self.named_parameters()), self.first_training_episode(batch)
        self.train_output_size = self.trainer.datamodule.train_output_size_at(number)
        blocks, is_shown = [], is_logged(self.trainer)
        for block in self._blocks(self.as_dtype(batch)):
            blocks.append(self.outcome(params, block, number, is_shown))
            number += len(block.query_x)
        step = mean_of_blocks(blocks) if self.block_size else mean_of_processes(blocks[0], is_shown)
        self.keep_statistics(step.statistics)
        self.log_dict({f"train/{name}": value for name, value in step.metrics.items()})
        # The derivative of this sum is the gradient itself: DDP, precision plugins, clipping and accumulation see an ordinary
        # loss. A loss that is not finite makes it so as well, on every rank.
        poison = 0.0 * step.metrics["outer_loss"]
        return (
            sum((params[name] * step.gradient[name].detach()).sum() for name in params)
            + poison * next(iter(params.values())).sum()
        )

    def _blocks(self, batch: Episode) -> Iterator[Episode]:
        if not self.block_size:
            yield batch
            return
        for tensors in zip(*(tensor.split(self.block_size) for tensor in batch), strict=True):
            yield Episode(*(tensor.clone() for tensor in tensors))  # where a tensor begins in memory decides about last bits

    def outcome(self, params: Params, batch: Episode, first_episode: int = 0, with_observations: bool = True) -> Outcome:
        """What a stack of training tasks comes to."""
        observed = [INNER_GRADIENT_NORM] * with_observations
        with stacking(self.stacking), observing(*observed) as observations:
            gradient, metrics = self.outer_gradient(params, batch, first_episode)
        norms = {name: torch.cat(values).mean() for name, values in observations.items() if values}
        return Outcome(gradient, metrics | norms, self.step_statistics())

    def logged_scores(self, data: EpisodicDataModule) -> list[str]:
        """Those of a validation, and of an outer step on one task."""
        batch = self.as_dtype(data.realise("train", data.draws("train", [0])))
        with self.tried_out() as learner:
            metrics = learner.train().outcome(dict(learner.named_parameters()), batch).metrics
        return [*(f"train/{name}" for name in metrics), *super().logged_scores(data)]
