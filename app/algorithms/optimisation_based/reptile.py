"""Reptile."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.func import vmap

from app.algorithms.optimisation_based.maml import MAML, FastWeights
from app.episode import Episode
from app.errors import check_at_least
from app.inner_loop.gradient_descent import gradient_and_value
from app.inner_loop.params import Params, detached
from app.learners.lr_schedule import LinearDecay
from app.learners.meta_algorithm import Metrics

BETA2, EPS = 0.999, 1e-8


class Reptile(MAML):
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
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            eval_inner_lr=eval_inner_lr,
            eval_inner_steps=eval_inner_steps,
            adapted="all",
            first_order=True,
            inner_momentum=0.0,
            checkpoint_inner_steps=False,
            compile=False,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            **kwargs,
        )
        sizes = {"inner_batch_size": inner_batch_size, "eval_inner_batch_size": eval_inner_batch_size}
        check_at_least(1, "model", or_null="for the whole support set", **sizes)
        self.inner_optimizer = inner_optimizer
        self.inner_batch_size = inner_batch_size
        self.eval_inner_batch_size = eval_inner_batch_size or inner_batch_size
        if inner_optimizer == "adam":
            for name, weight in self.net.named_parameters():
                self.register_buffer(_moment_name(name), torch.zeros_like(weight))
            self.register_buffer("adam_steps", torch.zeros((), dtype=torch.float64))

    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        start = detached(self.net_params(params))
        seed = int(torch.randint(2**31, ()))  # of the generator on the CPU, which every training step seeds
        minibatches = self.minibatches(self.inner_steps, batch.support_x.shape[1], self.inner_batch_size, seed)
        moments = self._moments()

        def task(episode: Episode) -> tuple[Params, Params, Metrics]:
            *_, (weights, second_moment, inner_loss) = self._descend(start, moments, episode, minibatches)
            adapted = FastWeights(weights, self.kept(episode.support_x))
            outputs = self.predict(params, adapted, episode.query_x)
            metrics = {"outer_loss": self.outer_loss(outputs, episode.query_y), "inner_loss": inner_loss}
            return weights, second_moment, metrics | {self.score_name: self.score(outputs, episode.query_y)}

        with torch.no_grad():
            results = [vmap(task)(chunk) for chunk in self.chunks(batch)]
            weights, moments, metrics = (
                {name: torch.cat([result[part][name] for result in results]).mean(0) for name in results[0][part]}
                for part in range(3)
            )
            self._keep_moments(moments)
        return {f"net.{name}": start[name] - weights[name] for name in start}, metrics

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        minibatches = self.minibatches(self.eval_inner_steps, len(support_x), self.eval_inner_batch_size, seed=0)
        episode = Episode(support_x, support_y, support_x, support_y)
        for weights, _, _ in self._descend(self.net_params(params), self._moments(), episode, minibatches):
            yield FastWeights(weights, self.kept(support_x))

    def _descend(
        self, weights: Params, moments: Params, episode: Episode, minibatches: Tensor
    ) -> Iterator[tuple[Params, Params, Tensor]]:
        """Yields weights, Adam's second moments and the mean of the losses so far, before and after each minibatch."""
        inner_lr = self.inner_lr if self.training else self.eval_inner_lr
        losses = torch.zeros((), dtype=torch.float32, device=episode.support_x.device)
        yield weights, moments, losses
        for step, rows in enumerate(minibatches):

            def loss(weights: Params, rows: Tensor) -> Tensor:
                outputs = self.network(weights, episode.support_x[rows])
                return self.inner_loss(outputs, episode.support_y[rows], reduction=self.inner_reduction)

            with self.inner_autocast():  # around the gradient too: its matrix products are autocast as well
                gradient, value = gradient_and_value(loss, weights, rows, first_order=True)
            losses = losses + value / len(minibatches)
            if self.inner_optimizer == "adam":
                moments = {name: BETA2 * moment + (1 - BETA2) * gradient[name].square() for name, moment in moments.items()}
                correction = 1 - BETA2 ** (self.adam_steps + step + 1)
                gradient = {name: g / ((moments[name] / correction).sqrt() + EPS).to(g.dtype) for name, g in gradient.items()}
            weights = {name: weight - inner_lr * gradient[name] for name, weight in weights.items()}
            yield weights, moments, losses

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

    def _moments(self) -> Params:
        if self.inner_optimizer == "sgd":
            return {}
        return {name: self.get_buffer(_moment_name(name)) for name, _ in self.net.named_parameters()}

    def _keep_moments(self, moments: Params) -> None:
        if self.inner_optimizer == "sgd":
            return
        for name, moment in moments.items():
            self.get_buffer(_moment_name(name)).copy_(self.mean_over_processes(moment))
        self.adam_steps += self.inner_steps


def _moment_name(name: str) -> str:
    return f"second_moment_{name.replace('.', '_')}"
