"""What all meta-learning methods share: the outer step, evaluation, logging."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call, vmap

from app.backbones import BackboneCallable, default_backbone
from app.backbones.drop_block import DropBlock
from app.calibration import Calibration
from app.compiled_gradient import CompiledGradient
from app.episode import Episode
from app.errors import InputError
from app.evaluation import logged, summarise
from app.inner_loop import INNER_GRADIENT_NORM
from app.learner import Learner, concrete_subclasses
from app.losses import DEFAULT_LOSS, LOSSES, LossName, accuracy, mse, widened
from app.observation import observing
from app.params import Params
from app.scores import EpisodeScores
from app.task_stack import Stacking, stacking
from datamodules.episodic import EpisodicDataModule

Metrics = dict[str, Tensor]
OUTPUTS = "outputs"  # of the queries, among the scores


class MetaAlgorithm(Learner):
    """Base of all methods: a subclass writes one task (`adapt`, `predict`), vmap adds the task axis.

    A method that is for classification or regression alone says so in `task_types`, one that learns all training classes at
    once in `global_labels`: the labels of its training tasks are then the numbers of the classes within the train split. One
    that is tested on streams of any number of classes says so in `learns_streams`, and one whose checkpoint can classify any
    number of classes in `any_ways`. One whose `chunk_gradient` depends on tensors alone, not on how far the run is or on random
    numbers, and changes none of them, says so in `can_compile`.

    Args:
        input_shape: shape of one input; linked to the data set.
        output_size: ways, or dimensions of the target; linked to the data set.
        train_output_size: ways of the training tasks, or all training classes where the labels are global, null for
            `output_size`; linked to the data set.
        task_type: classification or regression; linked to the data set.
        backbone: the network; null for Conv4 on images, MLP on vectors.
        outer_loss: loss of the query set; null for cross_entropy in classification, mse in regression.
        transductive: queries of a task are normalised together; else by the statistics of the support set.
        optimizer: the outer optimiser, any of torch.optim.
        lr_scheduler: of the outer learning rate, stepped once an outer step; any of torch.optim.lr_scheduler, or
            app.lr_schedule.LinearDecay and CosineDecay, which follow max_steps or max_time.
        tasks_per_chunk: tasks whose graphs are in memory together; null for all on a GPU, on the CPU as many as have a million
            numbers in support and query set, at least 2.
        stacking: how an inner loop convolves the images of many tasks, each by its own filters: grouped, in one call with a group
            of channels for each task; patches, as products of matrices; off, by vmap's own rules, several times slower; null
            for grouped on the CPU, patches on a GPU. The meta-gradient is the same.
        compile: the gradient of a chunk of tasks becomes one compiled program, on a GPU a CUDA graph, for the methods with an
            inner loop. The first step then takes a C++ compiler and up to minutes.
    """

    task_types: tuple[str, ...] = ("classification", "regression")
    learns_streams = False
    any_ways = False
    can_compile = False

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        train_output_size: int | None = None,
        task_type: str = "classification",
        backbone: BackboneCallable | None = None,
        outer_loss: LossName | None = None,
        transductive: bool = True,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        tasks_per_chunk: int | None = None,
        stacking: Stacking | None = None,
        compile: bool = False,
    ):
        super().__init__()
        if tasks_per_chunk is not None and tasks_per_chunk < 1:
            raise InputError(f"--model.tasks_per_chunk is {tasks_per_chunk}; give at least 1, or null")
        if compile and not self.can_compile:
            fitting = sorted(cls.__name__ for cls in concrete_subclasses(MetaAlgorithm) if cls.can_compile)
            raise InputError(
                f"--model.compile true is not for {type(self).__name__}; leave it out, or choose one of {', '.join(fitting)}"
            )
        self.check_task_type(task_type)
        self.input_shape, self.output_size, self.task_type = tuple(input_shape), output_size, task_type
        self.train_output_size = train_output_size or output_size
        self.outer_loss = self.loss_function("outer_loss", outer_loss)
        self.transductive = transductive
        self.tasks_per_chunk, self.stacking = tasks_per_chunk, stacking
        self.net = self.build_net(backbone or default_backbone(self.input_shape))
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self._scores = EpisodeScores()
        self.evaluation: dict[str, Any] = {}
        self._score_names: list[str] = []
        self.stages: list[int] = []
        self.score_all_stages = False
        self._calibration: Calibration | None = None
        self.autocast_inner_loop = True
        self._first_episode = 0
        self._compiled_gradient = CompiledGradient(self) if compile else None

    def check_task_type(self, task_type: str) -> None:
        """Raises an InputError where the method is not for the tasks of the data set."""
        if task_type not in self.task_types:
            fitting = [cls.__name__ for cls in concrete_subclasses(MetaAlgorithm) if task_type in cls.task_types]
            raise InputError(
                f"--model {type(self).__name__} is for {self.task_types[0]}, and the tasks of --data are {task_type}; choose one "
                f"of {', '.join(sorted(fitting))}"
            )

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        """The network, with a head of as many outputs as a test task has."""
        if self.train_output_size != self.output_size:
            raise InputError(
                f"--data.train_ways {self.train_output_size} differs from --data.ways {self.output_size}, the outputs of "
                f"{type(self).__name__}'s head; make them equal, or choose a method without a head, such as ProtoNet"
            )
        net = backbone(self.input_shape, self.output_size)
        if any(isinstance(module, DropBlock) for module in net.modules()):
            raise InputError(
                f"--model.backbone.drop_rate is above 0, and {type(self).__name__} cannot drop features in its inner loop; "
                "give 0, or choose a method without one, such as ProtoNet"
            )
        return net

    # One task

    @abstractmethod
    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> Any:
        """Whatever the method derives from a support set; pure and differentiable in `params`."""

    @abstractmethod
    def predict(self, params: Params, adapted: Any, query_x: Tensor) -> Tensor:
        """Logits or regression outputs of the queries."""

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[Any]:
        """Yields what the method knows at each stage of the adaptation, before it first and the result of `adapt` last."""
        yield self.adapt(params, support_x, support_y)

    def task_loss(self, params: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        """The outer loss of one task, and what is logged of it."""
        adapted = self.adapt(params, episode.support_x, episode.support_y)
        outputs = self.predict(params, adapted, episode.query_x)
        return self.outer_loss(outputs, episode.query_y), {self.score_name: self.score(outputs, episode.query_y)}

    def task_scores(self, params: Params, episode: Episode) -> Metrics:
        """Scores and loss of the query set at stages of the adaptation, each of shape (stages,).

        In `test` of a classification, OUTPUTS of the last stage too, where that saves computing them again.
        `test` scores every stage; validation the first, the last and those whose number is a power of two.
        """
        scores = []
        for adapted in self.scored(self.adaptation(params, episode.support_x, episode.support_y)):
            outputs = self.predict(params, adapted, episode.query_x)
            score, loss = self.score(outputs, episode.query_y), self.outer_loss(outputs, episode.query_y)
            scores.append({self.score_name: score, "loss": loss})
        last = {OUTPUTS: outputs} if self._calibration is not None else {}
        return last | {name: torch.stack([at_stage[name] for at_stage in scores]) for name in scores[0]}

    def scored(self, stages: Iterator[Any]) -> Iterator[Any]:
        """Those of the stages that are to be scored; leaves their numbers in `self.stages`."""
        self.stages = []
        stage, following = 0, next(stages)
        while following is not None:
            adapted, following = following, next(stages, None)
            if self.score_all_stages or stage & (stage - 1) == 0 or following is None:
                self.stages.append(stage)
                yield adapted
            stage += 1

    # All tasks

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor) -> Any:
        """`adapt` for a stack of tasks."""
        return vmap(self.adapt, (None, 0, 0))(params, support_x, support_y)

    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor) -> Tensor:
        """`predict` for a stack of tasks."""
        return vmap(self.predict, (None, 0, 0))(params, adapted, query_x)

    def losses(self, params: Params, batch: Episode) -> tuple[Tensor, Metrics]:
        """`task_loss` for a stack of tasks, each of shape (tasks,)."""
        return vmap(lambda episode: self.task_loss(params, episode))(batch)

    def scores(self, params: Params, batch: Episode) -> Metrics:
        """`task_scores` for a stack of tasks, each of shape (tasks, stages)."""
        return vmap(lambda episode: self.task_scores(params, episode))(batch)

    def outer_gradient(self, params: Params, batch: Episode) -> tuple[Params, Metrics]:
        """The direction against which the outer optimiser steps, and the means of what is logged.

        Chunk after chunk, each graph freed before the next is built: memory is bounded by `tasks_per_chunk`.
        """
        total: tuple[Tensor, ...] | None = None
        logged: list[Metrics] = []
        for chunk in self.chunks(batch):
            # A smaller last chunk is not worth a compilation of its own.
            whole = not logged or len(chunk.query_x) == len(logged[0]["outer_loss"])
            chunk_gradient = self._compiled_gradient if self._compiled_gradient and whole else self.chunk_gradient
            gradient, metrics = chunk_gradient(params, chunk)
            total = gradient if total is None else torch._foreach_add(total, gradient)
            logged.append(metrics)
        means = {name: torch.cat([metrics[name] for metrics in logged]).mean() for name in logged[0]}
        return dict(zip(params, torch._foreach_div(total, len(batch.query_x)), strict=True)), means

    def chunk_gradient(self, params: Params, chunk: Episode) -> tuple[tuple[Tensor, ...], Metrics]:
        """The gradient of the sum of the tasks' losses for each parameter, and what is logged, of shape (tasks,)."""
        loss, metrics = self.losses(params, chunk)
        gradient = torch.autograd.grad(loss.sum(), list(params.values()), materialize_grads=True)
        return gradient, {"outer_loss": loss.detach(), **{name: value.detach() for name, value in metrics.items()}}

    def chunks(self, batch: Episode) -> Iterator[Episode]:
        """The batch in pieces of at most `tasks_per_chunk` tasks."""
        size = self.tasks_per_chunk or len(batch.support_x)
        if not self.tasks_per_chunk and batch.support_x.device.type == "cpu":  # beyond that, caches are too small
            size = max(2, 2**20 // (batch.support_x[0].numel() + batch.query_x[0].numel()))
        first = self._first_episode
        for tensors in zip(*(tensor.split(size) for tensor in batch), strict=True):
            yield Episode(*tensors)
            self._first_episode += len(tensors[0])
        self._first_episode = first

    def generators(self, num_tasks: int) -> Iterator[torch.Generator]:
        """A source of random numbers for each task of the chunk, of which the run's seed and the task's number alone decide.

        Noise drawn from them, outside vmap, depends neither on chunks nor on the number of devices.
        """
        split = "train" if self.training else "evaluation"
        seed = self._trainer.datamodule.seed if self._trainer and self._trainer.datamodule else 0
        for episode in range(self._first_episode, self._first_episode + num_tasks):
            digest = sha256(f"{seed}:{split}:{episode}".encode()).digest()
            yield torch.Generator(self.device).manual_seed(int.from_bytes(digest[:6], "big"))

    def _count_episodes(self, batch: Episode) -> None:
        """Sets the number of the first task of this process's batch."""
        rank, world_size, data = self.trainer.global_rank, self.trainer.world_size, self.trainer.datamodule
        if self.training:
            self._first_episode = data.cursor * data.meta_batch_size + rank * len(batch.support_x)
        else:
            split = "test" if self.trainer.testing else "val"
            self._first_episode = data.num_episodes[split] * rank // world_size + self._scores.num_episodes

    # Lightning

    def on_fit_start(self) -> None:
        data, wanted = self.trainer.datamodule, self.global_labels
        if getattr(data, "global_labels", False) != wanted:
            labels = "all training classes at once" if wanted else "the classes of one task at a time"
            raise InputError(
                f"{type(self).__name__} learns {labels}, which --data.global_labels {str(not wanted).lower()} of "
                f"{type(data).__name__} does not number; build the data with {str(wanted).lower()}"
            )

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        params = dict(self.named_parameters())
        self._count_episodes(batch)
        with stacking(self.stacking), observing(*[INNER_GRADIENT_NORM] * self._is_logged()) as observed:
            gradient, metrics = self.outer_gradient(params, self.as_dtype(batch))
        logged = {f"train/{name}": value for name, value in metrics.items()}
        self.log_dict(logged, prog_bar=True, sync_dist=self.trainer.world_size > 1)
        norms = {f"train/{name}": torch.cat(values).mean() for name, values in observed.items() if values}
        self.log_dict(norms, sync_dist=self.trainer.world_size > 1)
        # The derivative of this sum is the gradient itself: DDP, precision plugins, clipping and accumulation see an ordinary
        # loss. A loss that is not finite makes it so as well, on every rank.
        poison = 0.0 * metrics["outer_loss"]
        return sum((params[name] * gradient[name].detach()).sum() for name in params) + poison * next(iter(params.values())).sum()

    def _is_logged(self) -> bool:
        """Whether the training step at hand is one of those that are logged."""
        return self.trainer._logger_connector.should_update_logs

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        self._evaluation_step(batch)

    def on_test_epoch_start(self) -> None:
        self._calibration = Calibration(self.output_size).to(self.device) if self.task_type == "classification" else None

    def test_step(self, batch: Episode, batch_idx: int) -> dict[str, Any]:
        """The number of the batch's first episode, and the class predicted for each query, of shape (tasks, queries), or null."""
        predicted = self._evaluation_step(batch, score_all_stages=True)
        return {"first_episode": self._first_episode, "predicted": predicted}

    def _evaluation_step(self, batch: Episode, score_all_stages: bool = False) -> Tensor | None:
        self.score_all_stages = score_all_stages
        params = dict(self.named_parameters())
        self._count_episodes(batch)
        # A copy that was not made in inference mode, whose tensors the inner loop could not differentiate.
        with torch.inference_mode(False), torch.no_grad(), stacking(self.stacking):
            return self._score(params, self.as_dtype(Episode(*(tensor.clone() for tensor in batch))))

    def _score(self, params: Params, batch: Episode) -> Tensor | None:
        predicted: list[Tensor] = []
        for chunk in self.chunks(batch):
            scores = self.scores(params, chunk)
            outputs = scores.pop(OUTPUTS, None)
            if self._calibration is not None:
                if outputs is None:
                    outputs = self.predict_tasks(
                        params, self.adapt_tasks(params, chunk.support_x, chunk.support_y), chunk.query_x
                    )
                self._calibration.update(self.probabilities(outputs).flatten(0, 1), chunk.query_y.flatten())
                predicted.append(outputs.argmax(-1))
            self._score_names = list(scores)
            columns = [score.to(torch.float64) for score in scores.values()]
            numbers = torch.arange(self._first_episode, self._first_episode + len(chunk.query_x)).to(columns[0])
            self._scores.update(torch.stack([numbers[:, None].expand_as(columns[0]), *columns], -1))
        return torch.cat(predicted) if predicted else None

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def _finish_evaluation(self, split: str) -> None:
        rows = self.gathered(self._scores.compute())
        self._scores.reset()
        with_references = split == "test" and self.trainer.is_global_zero
        summary = summarise(rows, self._score_names, self.trainer.datamodule, split, with_references)
        self.evaluation = {"split": split, "inner_steps": self.stages, **summary}
        if self._calibration is not None:
            self.evaluation["calibration"] = self._calibration.compute()
            self.log(f"{split}/calibration_error", rows.new_tensor(self.evaluation["calibration"]["error"]))
            self._calibration = None
        for name, value in logged(summary, split, self.score_name).items():
            self.log(name, rows.new_tensor(value))

    def gathered(self, rows: Tensor) -> Tensor:
        """The scores of all episodes as they are reported, of shape (episodes, stages, 1 + scores), under `_score_names`."""
        return rows

    # Small things

    def loss_function(self, option: str, name: LossName | None) -> Callable[..., Tensor]:
        """The loss of that name, or the default of the task type."""
        if self.task_type == "regression" and name == "cross_entropy":
            raise InputError(f"--model.{option} cross_entropy needs classes, and the data set is a regression; choose mse")
        return LOSSES[name or DEFAULT_LOSS[self.task_type]]

    @property
    def score_name(self) -> str:
        """The number that people read: accuracy, or mse in regression."""
        return "accuracy" if self.task_type == "classification" else "mse"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (accuracy if self.task_type == "classification" else mse)(outputs, targets)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """What outputs of shape (..., ways) give each class, summing to 1."""
        return widened(outputs).softmax(-1)

    @property
    def monitor(self) -> tuple[str, str]:
        return f"val/{self.score_name}", "max" if self.task_type == "classification" else "min"

    def check_data(self, data: EpisodicDataModule) -> None:
        if data.has_streams and not self.learns_streams:
            fitting = [cls.__name__ for cls in concrete_subclasses(MetaAlgorithm) if cls.learns_streams]
            raise InputError(
                f"--data {type(data).__name__} tests on streams of up to {data.output_size} classes, and --model "
                f"{type(self).__name__} is for tasks of one size; choose one of {', '.join(sorted(fitting))}"
            )

    def check_inputs(self, inputs: Tensor) -> None:
        """Raises an InputError where inputs, as `adapt` and `predict` get them, are none that the method can take."""

    def describe_method(self) -> dict[str, Any]:
        """What `results.json` says about the way of predicting."""
        return {"transductive": self.transductive}

    def network(self, params: Params, x: Tensor) -> Tensor:
        """The backbone with these parameters, named as in `self.net`."""
        return functional_call(self.net, params, (x,))

    def inner_autocast(self) -> torch.autocast:
        """The precision of the inner loop: autocast only where it is on outside and the inner loop may use it."""
        device = self.device.type
        return torch.autocast(device, enabled=self.autocast_inner_loop and torch.is_autocast_enabled(device), cache_enabled=False)

    def net_params(self, params: Params) -> Params:
        """The backbone's share of the meta-parameters, named as in `self.net`."""
        return self.module_params("net", params)

    def module_params(self, module: str, params: Params) -> Params:
        """The share that a module of the method has in the meta-parameters, named as in the module."""
        prefix = f"{module}."
        return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}

    def call_module(self, module: str, params: Params, *inputs: Tensor) -> Tensor:
        """A module of the method, by its name, with its share of these meta-parameters."""
        return functional_call(self.get_submodule(module), self.module_params(module, params), inputs)

    def as_dtype(self, batch: Episode) -> Episode:
        """The batch with inputs and regression targets in the parameters' dtype."""
        dtype = next(self.parameters()).dtype
        return Episode(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in batch))
