"""Implicit MAML."""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.func import vmap

from app.algorithms.optimisation_based.conjugate_gradients import conjugate_gradients
from app.algorithms.optimisation_based.inner_loop_algorithm import FastWeights, InnerLoopAlgorithm
from app.episode import Episode
from app.errors import check_above_zero, check_at_least
from app.inner_loop.gradient_descent import InnerLoop, gradient_and_value, hessian
from app.inner_loop.inner_optimizers import Pulled
from app.inner_loop.inner_optimizers import inner_optimizer as optimizer_of
from app.inner_loop.params import Params
from app.inner_loop.step_rules import ConstantStep
from app.learners.meta_algorithm import Metrics


class IMAML(InnerLoopAlgorithm):
    """Learns an initialisation by the implicit gradient of the optimum near it (Rajeswaran, Finn, Kakade, Levine 2019).

    The inner loop descends on the support loss plus a pull towards the initialisation. Where it ends near the optimum, the outer
    gradient needs that end alone: with the Hessian H of the support loss there it is (I + H / proximal)^-1 times the gradient of
    the query loss. Its memory does not grow with the inner steps.

    The authors' program does otherwise, and so does this one with `pull` after, `proximal_damping` 10 and `eval_proximal` 0: its
    inner loop descends on the support loss alone, and it takes (2 I + H / (proximal + 10))^-1.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training; enough to come near the optimum.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        inner_optimizer: what the inner loop makes of its gradients.
        inner_momentum: momentum, or adam's beta1, from 0 to below 1.
        proximal: lambda, the strength of the pull: half of it times the squared distance is added to the support loss.
        eval_proximal: the same at evaluation, null for `proximal`.
        pull: in every step of the inner loop; or after the last one, in one step of the same size on the pull alone.
        cg_steps: conjugate gradients, each a product with the Hessian.
        cg_damping: is added to the identity: the solution is shorter and smoother, and no longer the exact one.
        proximal_damping: is added to `proximal` where the Hessian is divided by it: the solution heeds the Hessian less.
    """

    def __init__(
        self,
        inner_lr: float = 0.1,
        inner_steps: int = 16,
        eval_inner_lr: float | None = None,
        inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd",
        inner_momentum: float = 0.9,
        proximal: float = 2.0,
        eval_proximal: float | None = None,
        pull: Literal["every_step", "after"] = "every_step",
        cg_steps: int = 5,
        cg_damping: float = 1.0,
        proximal_damping: float = 0.0,
        **kwargs,
    ):
        super().__init__(inner_steps=inner_steps, **kwargs)
        check_above_zero("model", proximal=proximal)
        check_at_least(0, "model", eval_proximal=eval_proximal, cg_damping=cg_damping, proximal_damping=proximal_damping)
        check_at_least(1, "model", cg_steps=cg_steps)
        self.step = ConstantStep(inner_lr, eval_inner_lr)
        self.inner_optimizer = optimizer_of(inner_optimizer, inner_momentum)
        self.proximal, self.eval_proximal = proximal, proximal if eval_proximal is None else eval_proximal
        self.pull = pull
        self.cg_steps, self.cg_damping, self.proximal_damping = cg_steps, cg_damping, proximal_damping

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        start, strength = self.net_params(params), self.proximal if self.training else self.eval_proximal
        pulled = Pulled(self.inner_optimizer, start, strength)
        optimizer = pulled if self.pull == "every_step" else self.inner_optimizer
        loop = InnerLoop(self.support_loss, self.step, optimizer, first_order=True, precision=self.inner_autocast())
        for step, state in enumerate(loop.states(start, self.num_inner_steps, (support_x, support_y))):
            weights = state.weights
            if self.pull == "after" and step == self.num_inner_steps:
                distance = {name: strength * (weight - start[name]) for name, weight in weights.items()}
                weights = self.step(step, weights, distance)
            yield FastWeights(weights, self.kept(support_x))

    def support_loss(self, weights: Params, support: tuple[Tensor, Tensor], step: int = 0) -> Tensor:
        """What the inner loop descends on, besides the pull."""
        inputs, targets = support
        return self.loss_of(self.network(weights, inputs), targets)

    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        total: Params | None = None
        logged: list[Metrics] = []
        with torch.no_grad():
            for chunk in self.chunks(batch):
                gradients, metrics = vmap(partial(self.implicit_gradient, params))(chunk)
                sums = {name: gradient.sum(0) / len(batch.query_x) for name, gradient in gradients.items()}
                total = sums if total is None else {name: total[name] + part for name, part in sums.items()}
                logged.append(metrics)
        means = {name: torch.cat([metrics[name] for metrics in logged]).mean() for name in logged[0]}
        return {f"net.{name}": gradient for name, gradient in total.items()}, means

    def implicit_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """The outer gradient of one task, and what is logged of it."""
        adapted = self.adapt(params, episode.support_x, episode.support_y)

        def query_loss(weights: Params) -> tuple[Tensor, Metrics]:
            outputs = self.predict(params, FastWeights(weights, adapted.support_x), episode.query_x)
            loss = self.outer_loss(outputs, episode.query_y)
            return loss, {"outer_loss": loss, self.score_name: self.score(outputs, episode.query_y)}

        slope, (_, metrics) = gradient_and_value(query_loss, adapted.weights, first_order=True, has_aux=True)
        with self.inner_autocast():
            curved = hessian(self.support_loss, adapted.weights, (episode.support_x, episode.support_y))

            def product(vector: Params) -> Params:
                image = curved(vector)
                identity, strength = 1 + self.cg_damping, self.proximal + self.proximal_damping
                return {name: identity * part + image[name] / strength for name, part in vector.items()}

            return conjugate_gradients(product, slope, self.cg_steps), metrics
