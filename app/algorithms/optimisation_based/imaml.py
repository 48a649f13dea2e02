"""Implicit MAML."""

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from app.algorithms.optimisation_based.conjugate_gradients import conjugate_gradients
from app.algorithms.optimisation_based.inner_loop_algorithm import FastWeights, InnerLoopAlgorithm
from app.episode import Episode
from app.errors import check_above_zero, check_at_least
from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.inner_optimizers import inner_optimizer as optimizer_of
from app.inner_loop.params import Params
from app.inner_loop.step_rules import ConstantStep
from app.learners.meta_algorithm import Metrics


class Support(NamedTuple):
    """All tensors but the adapted weights that the inner loss depends on.

    Attributes:
        start: the initialisation, towards which the weights are pulled.
        inputs: of the support set.
        targets: of the support set.
    """

    start: Params
    inputs: Tensor
    targets: Tensor


class IMAML(InnerLoopAlgorithm):
    """Learns an initialisation by the implicit gradient of the optimum near it (Rajeswaran, Finn, Kakade, Levine 2019).

    The inner loop descends on the support loss plus a pull towards the initialisation. Where it ends near the optimum, the outer
    gradient needs that end alone: with the Hessian H of the support loss there it is (I + H / proximal)^-1 times the gradient of
    the query loss. Its memory does not grow with the inner steps.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training; enough to come near the optimum.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        inner_optimizer: what the inner loop makes of its gradients.
        inner_momentum: momentum, or adam's beta1, from 0 to below 1.
        proximal: lambda, the strength of the pull: half of it times the squared distance is added to the support loss.
        eval_proximal: the same at evaluation, null for `proximal`; the authors' program takes 0.
        cg_steps: conjugate gradients, each a product with the Hessian.
        cg_damping: is added to the identity: the solution is shorter and smoother, and no longer the exact one.
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
        cg_steps: int = 5,
        cg_damping: float = 1.0,
        **kwargs,
    ):
        super().__init__(inner_steps=inner_steps, **kwargs)
        check_above_zero("model", proximal=proximal)
        check_at_least(0, "model", eval_proximal=eval_proximal, cg_damping=cg_damping)
        check_at_least(1, "model", cg_steps=cg_steps)
        self.step = ConstantStep(inner_lr, eval_inner_lr)
        self.inner_optimizer = optimizer_of(inner_optimizer, inner_momentum)
        self.proximal, self.eval_proximal = proximal, proximal if eval_proximal is None else eval_proximal
        self.cg_steps, self.cg_damping = cg_steps, cg_damping

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        support = Support(self.net_params(params), support_x, support_y)
        loop = InnerLoop(self.pulled_loss, self.step, self.inner_optimizer, first_order=True, precision=self.inner_autocast())
        for state in loop.states(support.start, self.num_inner_steps, support):
            yield FastWeights(state.weights, self.kept(support_x))

    def pulled_loss(self, weights: Params, support: Support, step: int) -> Tensor:
        """The support loss and the pull towards the initialisation."""
        strength = self.proximal if self.training else self.eval_proximal
        distance = sum((weight - support.start[name]).square().sum() for name, weight in weights.items())
        return self.loss_of(self.network(weights, support.inputs), support.targets) + strength / 2 * distance

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

        slope, metrics = torch.func.grad(query_loss, has_aux=True)(adapted.weights)
        support = Support(self.net_params(params), episode.support_x, episode.support_y)
        inner_gradient = torch.func.grad(lambda weights: self.pulled_loss(weights, support, self.inner_steps))
        with self.inner_autocast():
            _, hessian_product = torch.func.vjp(inner_gradient, adapted.weights)  # symmetric, so from either side

            def product(vector: Params) -> Params:
                (curved,) = hessian_product(vector)  # the pull is in it: H + proximal
                return {name: self.cg_damping * part + curved[name] / self.proximal for name, part in vector.items()}

            return conjugate_gradients(product, slope, self.cg_steps), metrics
