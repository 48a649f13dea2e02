"""How a learner goes through a stream: the protocol of all continual methods."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from app.continual.base.differentiation import descend_by, is_recording, unrecorded
from app.continual.base.memory import ReservoirMemory
from app.continual.base.meta_parameters import Range
from app.continual.base.objective import OBJECTIVES
from app.continual.base.streams_at_hand import Draws, as_kept, outside, slopes
from app.errors import InputError, check_at_least
from datamodules.base.stream import Experience, Samples, StreamBatch, StreamDataModule

Need = Literal["boundaries", "task_ids", "classes", "numbers"]


class ContinualMethod(nn.Module):
    """Base of the methods: `begin_experience`, `observe`, `end_experience`, `predict`; what it keeps are parameters and buffers.

    A method without any memory of the past is fine-tuning: subclasses say what they do about forgetting. Everything random comes
    from the generator that `observe` gets, a function of the seed and the step; so a resumed run draws the same.

    Under DDP a method shards the batch: every process holds all of it, computes the loss of its share of the rows
    (`mean_loss`), and `step` adds the gradients up. A `sequential` one cannot: its processes are replicas, each with a
    stream of its own.

    Args:
        net: the network; its last layer has an output for each class of the stream, or of an experience.
        stream: what it will learn from.
        optimizer: of the weights, any of torch.optim.
        glances: gradient steps on each incoming batch.
    """

    needs: frozenset[Need] = frozenset()
    sequential = False
    learns_at_end = False  # whether the stream must be over before it has learned anything
    # Whether it can be run on several streams at once, by vmap. Then it draws with what `streams_at_hand` has for that, computes
    # gradients by `gradient` or `slopes`, and looks at `number` and `self.masks`, never at an experience itself.
    goes_abreast = False
    # Numbers that can be meta-learned, by the names of the options and attributes that they are, with what they may be. A method
    # that has this of its own can be differentiated: it takes its steps by `step` or `descend`, and what it keeps of the weights
    # it computes within `unrecorded` or by `held`.
    meta_parameters: ClassVar[dict[str, Range]] = {}

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=0.03),
        glances: int = 1,
    ):
        super().__init__()
        check_at_least(1, "model.method", glances=glances)
        self.net, self._optimizer, self.glances = net, optimizer, glances
        self.rank, self.world_size = 0, 1
        self.predict_seconds = 0.0  # of learning that `predict` asked for, in this process
        self.optimizer: torch.optim.Optimizer | None = None
        # Where steps are differentiated, sizes of theirs by the names of the weights, instead of an optimiser.
        self.step_sizes: dict[str, Tensor | float] | None = None
        self.stream, self.masked, self.objective = stream, stream.has_task_ids, OBJECTIVES[stream.task_type]
        self.register_buffer("masks", class_masks(stream), persistent=False)
        self.register_buffer("num_gradients", torch.zeros((), dtype=torch.int64))

    # The protocol

    def starting_state(self) -> dict[str, Tensor]:
        """Those of the parameters, by their names, that the numbers of the method decide before the first batch."""
        return {}

    def begin_experience(self, number: int, experience: Experience) -> None:
        """Called before the first batch of an experience, where the stream has boundaries."""

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        """Learns from a batch and returns its loss.

        Args:
            batch: what arrives, all of it on every process.
            generator: of all that the method draws at this step, on the CPU; where it `goes_abreast`, of each stream.
        """
        for _ in range(self.glances):
            loss = self.mean_loss(batch.x, batch.y, batch.task)
            self.step(loss)
        return loss

    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        """Called after the last batch of an experience, where the stream has boundaries.

        Args:
            number: of the experience.
            experience: its title and classes.
            samples: its training samples, for what a method computes of them; not to be kept.
        """

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Logits of all outputs, without gradients.

        Args:
            x: inputs.
            task: number of the experience of each, where the stream gives task ids.
        """
        with unrecorded():
            return self.net(x)

    @property
    def memory_bytes(self) -> int:
        """What the method keeps besides the network, in bytes."""
        return 0

    def check_stream(self, stream: StreamDataModule) -> None:
        """Raises an InputError where the stream does not give what the method needs."""
        has_classes = self.objective.has_classes
        given = {"boundaries": stream.has_boundaries, "task_ids": stream.has_task_ids}
        given |= {"classes": has_classes, "numbers": not has_classes}
        for need in sorted(self.needs):
            if not given[need]:
                what = {"task_ids": "task ids", "numbers": "numbers to predict"}.get(need, need)
                raise InputError(
                    f"--model.method {type(self).__name__} needs {what}, which {type(stream).__name__} ({stream.task_type}, "
                    f"scenario {stream.scenario}) does not give; choose another method, such as ER, or another stream"
                )

    def course(self, number: int) -> tuple:
        """What the steps on the stream of that number depend on besides tensors: streams go together where it is the same."""
        return tuple(memory.held(number) for memory in self.memories)

    @cached_property
    def memories(self) -> list[ReservoirMemory]:
        """All that it keeps samples in."""
        return [module for module in self.modules() if isinstance(module, ReservoirMemory)]

    # What subclasses share

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the weights, all of them unless the method chooses."""
        return self._optimizer(self.net.parameters())

    def take_rate(self, rate: float) -> None:
        """Takes steps of this size, before the first batch, instead of those that were given."""
        made = self._optimizer

        def at_rate(params: Iterable[Tensor]) -> torch.optim.Optimizer:
            optimizer = made(params)
            for group in optimizer.param_groups:
                group["lr"] = rate
            return optimizer

        self._optimizer = at_rate
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = rate

    def logits(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits; with task ids those of other experiences' classes are minus infinity."""
        outputs = self.net(x)
        return outputs.masked_fill(~self.masks[task], -torch.inf) if self.masked else outputs

    def share(self, rows: int) -> slice:
        """The rows of a batch that this process computes."""
        return slice(rows * self.rank // self.world_size, rows * (self.rank + 1) // self.world_size)

    def mean_loss(self, x: Tensor, y: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
        """This process's part of the mean loss of a batch: the parts of all processes sum to it.

        Args:
            x: inputs.
            y: labels or targets.
            task: number of the experience of each.
            weights: of each in the mean, null for equal ones.
        """
        mine = self.share(len(y))
        self.num_gradients += len(y)
        logits = self.logits(x[mine], task[mine])
        if weights is None:
            return self.objective.loss(logits, y[mine], "sum") / len(y)
        return (weights[mine] * self.objective.loss(logits, y[mine], "none")).sum() / weights.sum()

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Gradient of the loss in the trained weights, summed over the processes."""
        gradients = slopes(loss, self.trained, materialize_grads=True, create_graph=is_recording())
        if self.world_size > 1 and not self.sequential:
            flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
            parts = flat.split([gradient.numel() for gradient in gradients])
            gradients = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        return gradients

    def total(self, part: Tensor) -> Tensor:
        """The sum of the parts of all processes that share a batch."""
        if self.world_size > 1 and not self.sequential:
            torch.distributed.all_reduce(part)
        return part

    @property
    def trained(self) -> list[nn.Parameter]:
        """The weights that the optimiser changes, as it keeps them."""
        if self.step_sizes is not None:
            return list(self.net.parameters())
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def step(self, loss: Tensor) -> None:
        """One step of the optimiser against the gradient of the loss."""
        self.descend(self.gradient(loss))

    def descend(self, gradients: list[Tensor]) -> None:
        """One step of the optimiser against these gradients."""
        if self.step_sizes is not None:
            descend_by(self.net, gradients, self.step_sizes)
            return
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = as_kept(gradient)
        with outside():
            self.optimizer.step()


def goes_abreast(cls: type) -> bool:
    """Whether a method says of itself that it can be run on several streams at once; what is made of it may do anything."""
    return vars(cls).get("goes_abreast", False)


def is_differentiable(cls: type) -> bool:
    """Whether a method says of itself that its numbers can be meta-learned; what is made of it may do anything."""
    return "meta_parameters" in vars(cls)


def class_masks(stream: StreamDataModule) -> Tensor:
    """Which outputs are classes of an experience, bool of shape (experiences, outputs)."""
    masks = torch.zeros(len(stream.experiences), stream.output_size, dtype=torch.bool)
    for number, experience in enumerate(stream.experiences):
        masks[number, list(experience.classes)] = True
    return masks


MethodCallable = Callable[[nn.Module, StreamDataModule], ContinualMethod]
