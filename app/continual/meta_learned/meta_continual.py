"""Continual learning as two-level optimisation: what a person sets of a method is learned on short streams."""

import shlex
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from app.backbones import BackboneCallable
from app.continual.base.method import ContinualMethod, MethodCallable
from app.continual.built_method import build_method
from app.continual.meta_learned.course import STEP_SIZE, Course
from app.continual.meta_learned.hypergradients import Found, Outer, forward, reverse, without_derivatives
from app.continual.meta_learned.outer_variables import OuterVariables
from app.continual.meta_learned.short_stream import Shape, ShortStream
from app.continual.methods.er import ER
from app.episode import Episode
from app.errors import InputError, check_above_zero, check_at_least
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.outer_step import Metrics, OuterStep
from app.lightning_internals import attached_trainer
from app.runs import commands
from app.runs.processes import is_rank_zero
from app.runs.run import checkpoint_dir
from app.scores.losses import accuracy
from datamodules.base.episodic import EpisodicDataModule
from datamodules.base.experience import Scenario

FEW = 8  # numbers that forward mode is for


class MetaContinual(OuterStep):
    """Meta-learns numbers, step sizes or the initial weights of a continual method (min_phi sum_t L_t(phi, theta_t*(phi))).

    The support set of a task is a short stream, class after class: a fresh network goes through it by the method's own steps,
    plain gradient descent. The outer loss is that on the query set, images of all its classes that were held out, after the
    stream. Its gradient is exact: what the memory keeps, the anchors and the answers of old depend on the numbers as well.

    Validation and test go through longer streams of other classes, with what was learned (accuracy, loss) and with what was set
    (accuracy_as_set).

    Args:
        input_shape: shape of one input; linked to the data set.
        output_size: classes of the longest test stream; linked to the data set.
        train_output_size: classes of a training stream; linked to the data set.
        task_type: classification; linked to the data set.
        method: what learns the streams; its numbers are where the outer optimiser begins. null for ER.
        meta_learn: what is learned: numbers that the method names; lr, or lr_per_layer or lr_per_weight; initialisation, the
            weights of all but the head, which each stream begins with anew.
        backbone: the network; null for an MLP of 100 and 100 units. Its norms normalise each image by itself.
        scenario: class, all classes compete; task, only those of the experience, whose number is given; domain, the output is
            the place of a class within its experience.
        classes_per_experience: of a stream's experience.
        batch_size: images of a step.
        passes: how often each experience is gone through before the next one comes.
        mode: forward, which remembers no step and takes as long as there are numbers; reverse, which computes each step again;
            null for forward where there are at most 8 numbers.
        optimizer: the outer optimiser, of logarithms and logits.
        initialisation_lr_factor: how many times as high its learning rate is for initial weights.
        lr_scheduler: of the outer learning rate, stepped once an outer step.
        tasks_per_chunk: streams that are gone through at once, by vmap; null for all of a step.
        block_size: streams that are always computed together; null for what is fastest.
    """

    learns_from = EpisodicDataModule
    task_types = ("classification",)
    learns_streams = True
    any_ways = True
    transductive = False
    stacking = None
    remedy_for_nan = "lower --model.optimizer.lr, or begin with a lower --model.method.optimizer.lr"

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        train_output_size: int | None = None,
        task_type: str = "classification",
        method: MethodCallable | None = None,
        meta_learn: tuple[str, ...] = ("lr",),
        backbone: BackboneCallable | None = None,
        scenario: Scenario = "class",
        classes_per_experience: int = 1,
        batch_size: int = 1,
        passes: int = 1,
        mode: Literal["forward", "reverse"] | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=0.05),
        initialisation_lr_factor: float = 0.1,
        lr_scheduler: LRSchedulerCallable | None = None,
        tasks_per_chunk: int | None = None,
        block_size: int | None = None,
    ):
        super().__init__()
        check_at_least(1, "model", batch_size=batch_size, passes=passes)
        check_at_least(1 if scenario == "class" else 2, "model", classes_per_experience=classes_per_experience)
        check_at_least(1, "model", or_null="for all", tasks_per_chunk=tasks_per_chunk)
        check_above_zero("model", initialisation_lr_factor=initialisation_lr_factor)
        self.input_shape, self.output_size, self.task_type = tuple(input_shape), output_size, task_type
        self.train_output_size = train_output_size or output_size
        self.shape = Shape(scenario, classes_per_experience, batch_size, passes)
        self._method, self._backbone = method or ER, backbone
        classes = torch.arange(self.train_output_size)
        example = ShortStream(torch.zeros(len(classes), *self.input_shape), classes, self.shape, "example")
        built = build_method(example, self._method, backbone)
        built.check_stream(example)
        self.method_name, self.outer = type(built).__name__, OuterVariables(list(meta_learn), built)
        if mode == "forward" and not self.outer.are_numbers:
            raise InputError(
                f"--model.mode forward is for single numbers, and --model.meta_learn is {list(meta_learn)}; leave it out"
            )
        few = self.outer.are_numbers and len(list(self.outer.parameters())) <= FEW
        self.mode = mode or ("forward" if few else "reverse")
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self._factor, self.tasks_per_chunk, self.block_size = initialisation_lr_factor, tasks_per_chunk, block_size

    # Streams

    def chunks(self, batch: Episode) -> Iterator[Episode]:
        for tensors in zip(*(tensor.split(self.tasks_per_chunk or len(tensor)) for tensor in batch), strict=True):
            yield Episode(*tensors)

    def _courses(self, batch: Episode, first_episode: int, repeats: int = 1) -> Course:
        """The way through the support sets of some tasks, so many times each, side by side."""
        trainer = attached_trainer(self)
        seed = trainer.datamodule.seed if trainer and trainer.datamodule else 0
        split, streams, methods = "train" if self.training else "evaluation", [], []
        for number, (images, labels) in enumerate(zip(batch.support_x, batch.support_y, strict=True), first_episode):
            streams.append(ShortStream(images, labels, self.shape, seed, split, number))
            methods.append(self._fresh(streams[-1]).to(images))
        return Course(methods, streams, repeats)

    def _fresh(self, stream: ShortStream) -> ContinualMethod:
        """The method on a network of its own, drawn with the stream's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream.seed)
            return build_method(stream, self._method, self._backbone)

    def _found(self, batch: Episode, first_episode: int) -> Found:
        outer, asked = self.outer.values(), (batch.query_x, batch.query_y)
        if self.mode == "reverse":
            return reverse(self._courses(batch, first_episode), outer, *asked)
        learned = [name for name, value in outer.settings.items() if value.requires_grad]
        return forward(partial(self._courses, batch, first_episode), outer, learned, *asked)

    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        total, losses, scores = [0.0] * len(params), [], []
        for chunk in self.chunks(batch):
            found = self._found(chunk, first_episode)
            first_episode += len(chunk.query_x)
            total = [one + other for one, other in zip(total, self.outer.gradient(found.derivatives), strict=True)]
            losses.append(found.losses)
            scores.append(self._scores(found.logits, chunk))
        metrics = {"outer_loss": torch.cat(losses).mean(), "accuracy": torch.cat(scores).mean()}
        numbers = {f"learned_{name}": losses[0].new_tensor(value) for name, value in self.outer.numbers().items()}
        return {name: part / len(batch.query_x) for name, part in zip(params, total, strict=True)}, metrics | numbers

    # Validation and test

    @torch.no_grad()
    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        losses, logits = self._outcome(self.outer.values(), batch, first_episode)
        _, as_set = self._outcome(self.outer.set_values(), batch, first_episode)
        scores = {"accuracy": self._scores(logits, batch), "loss": losses, "accuracy_as_set": self._scores(as_set, batch)}
        return {0: scores}, logits

    def query_outputs(self, params: Params, batch: Episode, first_episode: int = 0) -> Tensor:
        return self._outcome(self.outer.values(), batch, first_episode)[1]

    def _outcome(self, outer: Outer, batch: Episode, first_episode: int) -> tuple[Tensor, Tensor]:
        return without_derivatives(self._courses(batch, first_episode), outer, batch.query_x, batch.query_y)

    def _scores(self, logits: Tensor, batch: Episode) -> Tensor:
        per = self.shape.classes_per_experience
        labels = batch.query_y % per if self.shape.scenario == "domain" else batch.query_y
        return torch.stack([accuracy(own, targets) for own, targets in zip(logits, labels, strict=True)])

    # What is told and kept

    def check_data(self, data: EpisodicDataModule) -> None:
        for one, other in combinations(("train", "val", "test"), 2):
            if shared := sorted(data.identities(one) & data.identities(other)):
                raise InputError(
                    f"the {one} and {other} splits of --data {type(data).__name__} share {len(shared)} classes, such as "
                    f"{shared[0]}; streams are disjoint in classes, give other splits"
                )

    def new_optimizer(self) -> Optimizer:
        weights, numbers = list(self.outer.initial), [*self.outer.free.values(), *self.outer.rates]
        optimizer = self._optimizer([{"params": part} for part in (numbers, weights) if part])
        if weights:
            optimizer.param_groups[-1]["lr"] *= self._factor
        return optimizer

    def learned_step_sizes(self) -> dict[str, Tensor]:
        settings = self.outer.values().settings
        return {name.removeprefix(STEP_SIZE): value for name, value in settings.items() if name.startswith(STEP_SIZE)}

    def learned(self) -> dict[str, Any]:
        """All that a stream is learned with."""
        weights = self.outer.values().weights
        return {
            "method": self.method_name,
            "shape": self.shape._asdict(),
            "numbers": self.outer.as_set | self.outer.numbers(),
            "step_sizes": {name: sizes.detach().cpu() for name, sizes in self.learned_step_sizes().items()},
            "weights": {name.removeprefix("net."): weight.detach().cpu() for name, weight in weights.items()},
        }

    def on_fit_end(self) -> None:
        if not is_rank_zero():
            return
        found = {name: f"{value:.4g} (set to {self.outer.as_set[name]:g})" for name, value in self.outer.numbers().items()}
        found |= {f"lr of {name}": f"{float(sizes.detach().mean()):.4g}" for name, sizes in self.learned_step_sizes().items()}
        found |= {"initialisation": f"{len(self.outer.body)} tensors"} if self.outer.body else {}
        print(f"meta-learned of {self.method_name}: {', '.join(f'{name} {said}' for name, said in found.items())}")
        folder = checkpoint_dir(self.trainer.default_root_dir)
        for path in [path for name in ("best", "last") if (path := folder / f"{name}.ckpt").exists()][:1]:
            print(f"on a stream: {commands.train()} fit --data ClassStream --model.meta_learned {shlex.quote(str(path))}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["meta_learned"] = self.learned() | {"classes": sorted(self.trainer.datamodule.identities("train"))}

    def describe_algorithm(self) -> dict[str, Any]:
        return {
            "transductive": self.transductive,
            "method": self.method_name,
            "meta_learn": self.outer.learn,
            "numbers": self.outer.as_set | self.outer.numbers(),
            "numbers_as_set": self.outer.as_set,
            "disjoint_classes": True,  # else it would have been refused
        }
