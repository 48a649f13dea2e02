"""Reptile."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.func import vmap

from app.algorithms.optimisation_based.inner_loop_algorithm import FastWeights, InnerLoopAlgorithm
from app.episode import Episode
from app.errors import check_at_least
from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.inner_optimizers import Adam, GradientDescent
from app.inner_loop.params import Params, detached
from app.inner_loop.step_rules import ConstantStep
from app.learners.lr_schedule import LinearDecay
from app.learners.meta_algorithm import Metrics

EPS = 1e-8


class Minibatches(NamedTuple):
    """A support set and the rows of it that each inner step takes.

    Attributes:
        inputs: of the support set.
        targets: of the support set.
        rows: of shape (steps, size).
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor


class Reptile(InnerLoopAlgorithm):
    """Moves the initialisation towards the weights that ordinary training on each task ends in (Nichol, Achiam, Schulman 2018).

    The outer learning rate is Reptile's outer step size: the outer optimiser is plain SGD and its schedule falls linearly to 0.
    In training the second moment of the inner Adam goes on from task to task, as in the authors' program: the mean over the
    tasks of an outer step, over all devices.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: minibatches of the inner loop in training.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        eval_inner_steps: minibatches at evaluation, null for `inner_steps`.
        inner_optimizer: sgd, or adam with beta1 = 0.
        inner_batch_size: support examples in a minibatch, null for the whole support set.
        eval_inner_batch_size: the same at evaluation, null for `inner_batch_size`.
        optimizer: the outer optimiser; its lr is the outer step size.
        lr_scheduler: of the outer step size.
    """

    def __init__(
        self,
        inner_lr: float = 1e-3,
        inner_steps: int = 5,
        eval_inner_lr: float | None = None,
        eval_inner_steps: int | None = None,
        inner_optimizer: Literal["sgd", "adam"] = "adam",
        inner_batch_size: int | None = None,
        eval_inner_batch_size: int | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=1.0),
        lr_scheduler: LRSchedulerCallable | None = LinearDecay,
        **kwargs,
    ):
        super().__init__(
            inner_steps=inner_steps,
            eval_inner_steps=eval_inner_steps,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            **kwargs,
        )
        sizes = {"inner_batch_size": inner_batch_size, "eval_inner_batch_size": eval_inner_batch_size}
        check_at_least(1, "model", or_null="for the whole support set", **sizes)
        self.step, self.inner_optimizer = ConstantStep(inner_lr, eval_inner_lr), inner_optimizer
        self.inner_batch_size = inner_batch_size
        self._squares: Params = {}
        self.eval_inner_batch_size = eval_inner_batch_size or inner_batch_size
        if inner_optimizer == "adam":
            for name, weight in self.net.named_parameters():
                self.register_buffer(_moment_name(name), torch.zeros_like(weight))
            self.register_buffer("adam_steps", torch.zeros((), dtype=torch.float64))

    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        start, loop = detached(self.net_params(params)), self.inner_loop()
        seed = torch.initial_seed()  # every training step has its own
        rows = self.minibatches(self.inner_steps, batch.support_x.shape[1], self.inner_batch_size, seed)

        def task(episode: Episode) -> tuple[Params, Params, Metrics]:
            losses = []
            for state in loop.states(start, self.inner_steps, Minibatches(episode.support_x, episode.support_y, rows)):
                losses.append(state.loss)
            outputs = self.predict(params, FastWeights(state.weights, self.kept(episode.support_x)), episode.query_x)
            metrics = {"outer_loss": self.outer_loss(outputs, episode.query_y), "inner_loss": torch.stack(losses[1:]).mean()}
            squares = state.moments[-1] if state.moments else {}
            return state.weights, squares, metrics | {self.score_name: self.score(outputs, episode.query_y)}

        with torch.no_grad():
            results = [vmap(task)(chunk) for chunk in self.chunks(batch)]
            weights, squares, metrics = (
                {name: torch.cat([result[part][name] for result in results]).mean(0) for name in results[0][part]}
                for part in range(3)
            )
            self._squares = squares
        return {f"net.{name}": start[name] - weights[name] for name in start}, metrics

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        rows = self.minibatches(self.eval_inner_steps, len(support_x), self.eval_inner_batch_size, seed=0)
        support = Minibatches(support_x, support_y, rows)
        for state in self.inner_loop().states(self.net_params(params), self.eval_inner_steps, support):
            yield FastWeights(state.weights, self.kept(support_x))

    def inner_loop(self) -> InnerLoop:
        """Ordinary training, its Adam with the second moments of the tasks before."""
        optimizer = GradientDescent()
        if self.inner_optimizer == "adam":
            squares = {name: self.get_buffer(_moment_name(name)) for name, _ in self.net.named_parameters()}
            optimizer = Adam(0.0, EPS, squares, self.adam_steps)
        return InnerLoop(self.minibatch_loss, self.step, optimizer, first_order=True, precision=self.inner_autocast())

    def minibatch_loss(self, weights: Params, support: Minibatches, step: int) -> Tensor:
        """What an inner step descends on."""
        rows = support.rows[step]
        return self.loss_of(self.network(weights, support.inputs[rows]), support.targets[rows])

    def minibatches(self, num: int, rows: int, size: int | None, seed: int) -> Tensor:
        """Rows of the support set for each inner step, of shape (num, size): the shuffled set, again and again.

        All tasks of an outer step share them, and the random order of a task's classes and examples makes the difference.

        Args:
            num: inner steps.
            rows: of the support set.
            size: of a minibatch, null for all rows.
            seed: of the shuffles.
        """
        size = min(size or rows, rows)
        generator = np.random.default_rng(seed)  # torch's own may not be called under vmap
        shuffles = [generator.permutation(rows) for _ in range(-(-num * size // rows))]
        return torch.from_numpy(np.concatenate(shuffles)[: num * size].reshape(num, size)).to(self.device, non_blocking=True)

    def step_statistics(self) -> dict[str, Tensor]:
        """The second moments after the inner loop; of sgd there are none."""
        return self._squares

    def keep_statistics(self, statistics: dict[str, Tensor]) -> None:
        for name, moment in statistics.items():
            self.get_buffer(_moment_name(name)).copy_(moment)
        if statistics:
            self.adam_steps += self.inner_steps


def _moment_name(name: str) -> str:
    return f"second_moment_{name.replace('.', '_')}"
