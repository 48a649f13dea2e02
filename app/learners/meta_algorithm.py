"""What a meta-learning algorithm is, and the outer step that all share."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.func import vmap
from torch.optim import Optimizer

from app.backbones import BackboneCallable, default_backbone
from app.backbones.drop_block import DropBlock
from app.episode import Episode
from app.errors import InputError, check_above_zero, check_at_least
from app.inner_loop.params import Params
from app.inner_loop.task_stack import Stacking
from app.learners.calls_modules import CallsModules
from app.learners.episodic_learner import Evaluated
from app.learners.learner import Origin
from app.learners.outer_step import Metrics, OuterStep
from app.learners.parameter_groups import optimizer_of_parts
from app.learners.stages import stages_to_score
from app.learners.suitability import check_tasks
from app.scores.losses import DEFAULT_LOSS, LOSSES, LossName
from app.scores.tally import StageScores
from app.torch_internals import add_to_each, divide_each
from datamodules.base.episodic import EpisodicDataModule


class MetaAlgorithm(CallsModules, OuterStep):
    """Base of all algorithms: a subclass writes one task (`adapt`, `predict`), vmap adds the task axis.

    An algorithm that is for classification or regression alone says so in `task_types`, one that learns all training classes at
    once in `global_labels`: the labels of its training tasks are then the numbers of the classes within the train split. One
    that is tested on streams of any number of classes says so in `learns_streams`, and one whose checkpoint can classify any
    number of classes in `any_ways`.

    Args:
        input_shape: shape of one input; linked to the data set.
        output_size: ways, or dimensions of the target; linked to the data set.
        train_output_size: ways of the training tasks, or all training classes where the labels are global, null for
            `output_size`; linked to the data set.
        task_type: classification or regression; linked to the data set.
        backbone: the network; null for Conv4 on images, MLP on vectors.
        init_from: checkpoint of a run whose network is the start of this one's, but for a head of another size; null for none.
        head_lr_factor: how many times as high the outer learning rate is for what is learned beside the backbone's body, such as
            a head (10 in FEAT, Ye et al. 2020); null for one rate.
        outer_loss: loss of the query set; null for cross_entropy in classification, mse in regression.
        transductive: queries of a task are normalised together; else by the statistics of the support set.
        support_copies: in evaluation the support set is so many copies of each picture, each changed as by --data.augment in
            training (5 in RFS, Tian et al. 2020); null for the pictures as they are.
        optimizer: the outer optimiser, any of torch.optim.
        lr_scheduler: of the outer learning rate, stepped once an outer step; any of torch.optim.lr_scheduler, or
            app.learners.lr_schedule.LinearDecay and CosineDecay, which follow max_steps or max_time.
        block_size: tasks that are always computed together, on one thread of a CPU; their gradients are summed in a fixed order,
            so that training has the same bits on 1, 2, 4, ... devices. A divisor of --data.meta_batch_size; null for what is
            fastest, which is the same but for rounding.
        tasks_per_chunk: tasks whose graphs are in memory together; null for all on a GPU, on the CPU as many as have a million
            numbers in support and query set, at least 2.
        stacking: how an inner loop convolves the images of many tasks, each by its own filters: grouped, in one call with a group
            of channels for each task; patches, as products of matrices; off, by vmap's own rules, several times slower; null
            for grouped on the CPU, patches on a GPU. The meta-gradient is the same.
    """

    learns_from = EpisodicDataModule

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        train_output_size: int | None = None,
        task_type: str = "classification",
        backbone: BackboneCallable | None = None,
        outer_loss: LossName | None = None,
        transductive: bool = True,
        support_copies: int | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        block_size: int | None = None,
        tasks_per_chunk: int | None = None,
        stacking: Stacking | None = None,
        init_from: Path | None = None,
        head_lr_factor: float | None = None,
    ):
        super().__init__()
        check_above_zero("model", head_lr_factor=head_lr_factor)
        check_at_least(1, "model", or_null="for what fits", tasks_per_chunk=tasks_per_chunk)
        check_at_least(1, "model", or_null="for what is fastest", block_size=block_size)
        check_at_least(1, "model", support_copies=support_copies)
        self.input_shape, self.output_size, self.task_type = tuple(input_shape), output_size, task_type
        self.train_output_size = train_output_size or output_size
        self.outer_loss = self.loss_function("outer_loss", outer_loss)
        self.transductive, self.support_copies = transductive, support_copies
        self.block_size, self.tasks_per_chunk, self.stacking, self.init_from = block_size, tasks_per_chunk, stacking, init_from
        self.net = self.build_net(backbone or default_backbone(self.input_shape))
        self._optimizer, self._lr_scheduler, self.head_lr_factor = optimizer, lr_scheduler, head_lr_factor
        self.autocast_inner_loop = True

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        """The network, with a head of as many outputs as a test task has, or for any number of them."""
        if self.train_output_size != self.output_size and not self.any_ways:
            raise InputError(
                f"--data.train_ways {self.train_output_size} differs from --data.ways {self.output_size}, the outputs of "
                f"{type(self).__name__}'s head; make them equal, or choose an algorithm for any number, such as ProtoNet"
            )
        net = backbone(self.input_shape, self.output_size)
        if any(isinstance(module, DropBlock) for module in net.modules()):
            raise InputError(
                f"--model.backbone.drop_rate is above 0, and {type(self).__name__} cannot drop features in its inner loop; "
                "give 0, or choose an algorithm without one, such as ProtoNet"
            )
        return net

    # One task

    @abstractmethod
    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> Any:
        """Whatever the algorithm derives from a support set; pure and differentiable in `params`."""

    @abstractmethod
    def predict(self, params: Params, adapted: Any, query_x: Tensor) -> Tensor:
        """Logits or regression outputs of the queries."""

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[Any]:
        """Yields what the algorithm knows at each stage of the adaptation, before it first and the result of `adapt` last."""
        yield self.adapt(params, support_x, support_y)

    def task_loss(self, params: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        """The outer loss of one task, and what is logged of it."""
        adapted = self.adapt(params, episode.support_x, episode.support_y)
        outputs = self.predict(params, adapted, episode.query_x)
        return self.outer_loss(outputs, episode.query_y), {self.score_name: self.score(outputs, episode.query_y)}

    def evaluate(self, params: Params, episode: Episode, split: str) -> tuple[StageScores, Tensor]:
        """Score and loss of the query set at those stages of the adaptation that are scored, and the outputs after the last."""
        scores: StageScores = {}
        stages = stages_to_score(self.adaptation(params, episode.support_x, episode.support_y), split)
        for stage, outputs in self.outputs_at(stages, params, episode.query_x):
            score, loss = self.score(outputs, episode.query_y), self.outer_loss(outputs, episode.query_y)
            scores[stage] = {self.score_name: score, "loss": loss}
        return scores, outputs

    def outputs_at(self, stages: Iterator[tuple[int, Any]], params: Params, query_x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yields the outputs of the queries at each of these stages."""
        for stage, adapted in stages:
            yield stage, self.predict(params, adapted, query_x)

    # All tasks; what runs under vmap draws no random numbers, and does not ask for the number of an episode

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        """`adapt` for a stack of tasks."""
        return vmap(self.adapt, (None, 0, 0))(params, support_x, support_y)

    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor, first_episode: int = 0) -> Tensor:
        """`predict` for a stack of tasks."""
        return vmap(self.predict, (None, 0, 0))(params, adapted, query_x)

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        """`task_loss` for a stack of tasks, each of shape (tasks,)."""
        return vmap(lambda episode: self.task_loss(params, episode))(batch)

    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        return vmap(lambda episode: self.evaluate(params, episode, split))(batch)

    def query_outputs(self, params: Params, batch: Episode, first_episode: int = 0) -> Tensor:
        adapted = self.adapt_tasks(params, batch.support_x, batch.support_y, first_episode)
        return self.predict_tasks(params, adapted, batch.query_x, first_episode)

    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        """The direction against which the outer optimiser steps, and the means of what is logged.

        Chunk after chunk, each graph freed before the next is built: memory is bounded by `tasks_per_chunk`.
        """
        total: tuple[Tensor, ...] | None = None
        logged: list[Metrics] = []
        for chunk in self.chunks(batch):
            gradient, metrics = self.chunk_gradient(params, chunk, first_episode)
            first_episode += len(chunk.query_x)
            total = gradient if total is None else add_to_each(total, gradient)
            logged.append(metrics)
        means = {name: torch.cat([metrics[name] for metrics in logged]).mean() for name in logged[0]}
        return dict(zip(params, divide_each(total, len(batch.query_x)), strict=True)), means

    def chunk_gradient(self, params: Params, chunk: Episode, first_episode: int = 0) -> tuple[tuple[Tensor, ...], Metrics]:
        """The gradient of the sum of the tasks' losses for each parameter, and what is logged, of shape (tasks,)."""
        loss, metrics = self.losses(params, chunk, first_episode)
        gradient = torch.autograd.grad(loss.sum(), list(params.values()), materialize_grads=True)
        return gradient, {"outer_loss": loss.detach(), **{name: value.detach() for name, value in metrics.items()}}

    def chunks(self, batch: Episode) -> Iterator[Episode]:
        """The batch in pieces of at most `tasks_per_chunk` tasks."""
        size = self.tasks_per_chunk or len(batch.support_x)
        if not self.tasks_per_chunk and batch.support_x.device.type == "cpu":  # beyond that, caches are too small
            size = max(2, 2**20 // (batch.support_x[0].numel() + batch.query_x[0].numel()))
        for tensors in zip(*(tensor.split(size) for tensor in batch), strict=True):
            yield Episode(*tensors)

    # Lightning

    def origins(self) -> list[Origin]:
        return [Origin("init_from", self.init_from, self.net)] if self.init_from else []

    def new_optimizer(self) -> Optimizer:
        if self.head_lr_factor is None:
            return super().new_optimizer()
        return optimizer_of_parts(self._optimizer, self, self.head_lr_factor)

    def check_data(self, data: EpisodicDataModule) -> None:
        check_tasks(self, data)

    # What algorithms use

    def loss_function(self, option: str, name: LossName | None) -> Callable[..., Tensor]:
        """The loss of that name, or the default of the task type."""
        if self.task_type == "regression" and name == "cross_entropy":
            raise InputError(f"--model.{option} cross_entropy needs classes, and the data set is a regression; choose mse")
        return LOSSES[name or DEFAULT_LOSS[self.task_type]]

    def check_inputs(self, inputs: Tensor) -> None:
        """Raises an InputError where inputs, as `adapt` and `predict` get them, are none that the algorithm can take."""

    def describe_algorithm(self) -> dict[str, Any]:
        """What `results.json` says about the way of predicting."""
        return {"transductive": self.transductive}

    def inner_autocast(self) -> torch.autocast:
        """The precision of the inner loop: autocast only where it is on outside and the inner loop may use it."""
        device = self.device.type
        return torch.autocast(device, enabled=self.autocast_inner_loop and torch.is_autocast_enabled(device), cache_enabled=False)
