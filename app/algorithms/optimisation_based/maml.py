"""Model-agnostic meta-learning."""

from collections import deque
from collections.abc import Iterator
from math import isfinite
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from app.backbones.rows import Rows
from app.episode import Episode
from app.errors import InputError, check_at_least
from app.inner_loop.gradient_descent import gradient_descent
from app.inner_loop.inner_optimizers import INNER_OPTIMIZERS
from app.inner_loop.params import Params, detached
from app.inner_loop.step_rules import ConstantStep, StepRule
from app.learners.compiled_gradient import CompiledGradient
from app.learners.meta_algorithm import MetaAlgorithm, Metrics
from app.learners.suitability import check_equal_sizes
from app.scores.losses import LossName
from datamodules.base.episodic import EpisodicDataModule


class Support(NamedTuple):
    """All tensors but the adapted weights that a step of the inner loop depends on.

    Attributes:
        rule: parameters of the step rule.
        frozen: the network's weights that are not adapted.
        inputs: of the support set, or their features where the body does not change.
        targets: of the support set.
    """

    rule: Params
    frozen: Params
    inputs: Tensor
    targets: Tensor


class FastWeights(NamedTuple):
    """A network fitted to a support set.

    Attributes:
        weights: of the whole backbone, adapted or not.
        support_x: kept for predictions by the support set's statistics (non-transductive); without rows otherwise.
    """

    weights: Params
    support_x: Tensor


class MAML(MetaAlgorithm):
    """Learns an initialisation from which gradient steps on a support set generalise (Finn, Abbeel, Levine 2017).

    `adapted` chooses what the inner loop changes: all weights (MAML), the head (ANIL, Raghu et al. 2020) or the body (BOIL,
    Oh et al. 2021). `first_order` takes the inner gradients as constants (FOMAML).

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        eval_inner_steps: gradient steps at evaluation, null for `inner_steps`.
        adapted: the weights that the inner loop changes.
        first_order: the outer gradient ignores how the inner gradients depend on the initialisation.
        inner_loss: loss of the support set; null for cross_entropy in classification, mse in regression.
        inner_reduction: the support loss is the mean over its rows, or their sum (the papers' formulas).
        inner_optimizer: what the inner loop makes of its gradients; the outer gradient passes through momentum and adam too.
        inner_momentum: momentum, or adam's beta1, from 0 to below 1.
        checkpoint_inner_steps: keeps the weights of each inner step alone and computes the step once more for the outer
            gradient, which is the same: the memory is that of one step, the time about a third more.
        compile: the gradient of a chunk of tasks becomes one compiled program, on a GPU a CUDA graph; the first step then takes a
            C++ compiler and up to minutes. On the CPU it pays for small networks without convolutions, whose step takes a
            quarter of the time; for convolutional ones it is experimental: from a tenth faster to a tenth slower.
    """

    def __init__(
        self,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
        eval_inner_lr: float | None = None,
        eval_inner_steps: int | None = None,
        adapted: Literal["all", "head", "body"] = "all",
        first_order: bool = False,
        inner_loss: LossName | None = None,
        inner_reduction: Literal["mean", "sum"] = "mean",
        inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd",
        inner_momentum: float = 0.9,
        checkpoint_inner_steps: bool = False,
        compile: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_at_least(1, "model", inner_steps=inner_steps, eval_inner_steps=eval_inner_steps)
        for option, lr in (("inner_lr", inner_lr), ("eval_inner_lr", eval_inner_lr)):
            if lr is not None and not isfinite(lr):
                raise InputError(f"--model.{option} is {lr}; give a finite number")
        if checkpoint_inner_steps and compile:
            raise InputError(
                "--model.checkpoint_inner_steps true computes twice what --model.compile true computes once; leave one out"
            )
        if not 0 <= inner_momentum < 1:
            raise InputError(f"--model.inner_momentum is {inner_momentum}; give a number from 0 to below 1")
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.eval_inner_lr = inner_lr if eval_inner_lr is None else eval_inner_lr
        self.eval_inner_steps = eval_inner_steps or inner_steps
        self.adapted, self.first_order = adapted, first_order
        self.inner_loss, self.inner_reduction = self.loss_function("inner_loss", inner_loss), inner_reduction
        self.inner_optimizer, self.inner_momentum = inner_optimizer, inner_momentum
        self.checkpoint_inner_steps = checkpoint_inner_steps
        self.step_sizes: StepRule = ConstantStep(self.adapted_weights(), inner_lr, self.eval_inner_lr)
        self._compiled_gradient = CompiledGradient(self, super().chunk_gradient) if compile else None

    def check_data(self, data: EpisodicDataModule) -> None:
        super().check_data(data)
        if self._compiled_gradient and "train" in data.used_splits:
            check_equal_sizes(data)

    def chunk_gradient(self, params: Params, chunk: Episode, first_episode: int = 0) -> tuple[tuple[Tensor, ...], Metrics]:
        return (self._compiled_gradient or super().chunk_gradient)(params, chunk)

    # What the inner loop changes

    def adapted_names(self) -> list[str]:
        """Names of the backbone's weights that the inner loop changes."""
        names = [name for name, _ in self.net.named_parameters()]
        if self.adapted == "all":
            return names
        return [name for name in names if name.startswith("head.") == (self.adapted == "head")]

    def adapted_weights(self) -> Params:
        """The backbone's own weights of these names."""
        weights = dict(self.net.named_parameters())
        return {name: weights[name] for name in self.adapted_names()}

    def initial_weights(self, params: Params) -> Params:
        """Where the inner loop starts."""
        net_params = self.net_params(params)
        return {name: net_params[name] for name in self.adapted_names()}

    def frozen_weights(self, params: Params) -> Params:
        """What the network needs besides the adapted weights."""
        adapted = set(self.adapted_names())
        return {name: weight for name, weight in self.net_params(params).items() if name not in adapted}

    def weights_at(self, step: int, weights: Params) -> Params:
        """The network's weights in an inner step, of adapted and frozen ones."""
        return weights

    @property
    def body_is_fixed(self) -> bool:
        """Whether the features do not change from step to step."""
        return self.adapted == "head"

    # The inner loop

    def rule_params(self, params: Params) -> Params:
        """The share that the step rule has in the meta-parameters."""
        return self.module_params("step_sizes", params)

    def learned_step_sizes(self) -> Params:
        return self.step_sizes.learned_sizes()

    def next_weights(self, support: Support, step: int, weights: Params, direction: Params) -> Params:
        """What an inner step makes of the weights."""
        return functional_call(self.step_sizes, support.rule, (step, weights, direction))

    def support_loss(self, weights: Params, support: Support, step: int) -> Tensor:
        """What the inner loop descends on."""
        if self.body_is_fixed:
            head = {name.removeprefix("head."): weight for name, weight in weights.items()}
            outputs = functional_call(self.net.head, head, (support.inputs,))
        else:
            outputs = self.network(self.weights_at(step, support.frozen | weights), support.inputs)
        return self.inner_loss(outputs, support.targets, reduction=self.inner_reduction)

    def support(self, params: Params, support_x: Tensor, support_y: Tensor) -> Support:
        """The support set as the inner loop takes it."""
        frozen = self.frozen_weights(params)
        frozen = detached(frozen) if self.first_order else frozen
        if self.body_is_fixed:
            body = {name.removeprefix("body."): weight for name, weight in frozen.items()}
            with self.inner_autocast():
                support_x = functional_call(self.net.body, body, (support_x,))
            frozen = {}
        return Support(self.rule_params(params), frozen, support_x, support_y)

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        steps = gradient_descent(
            self.support_loss,
            self.initial_weights(params),
            self.next_weights,
            self.inner_steps if self.training else self.eval_inner_steps,
            self.support(params, support_x, support_y),
            self.first_order,
            INNER_OPTIMIZERS[self.inner_optimizer](self.inner_momentum),
            self.inner_autocast(),
            self.checkpoint_inner_steps and self.training,
        )
        frozen = self.frozen_weights(params)
        for step, weights in enumerate(steps):
            yield FastWeights(self.weights_at(max(step - 1, 0), frozen | weights), self.kept(support_x))

    def kept(self, support_x: Tensor) -> Tensor:
        """What a prediction needs of the support set besides the weights."""
        return support_x[:0] if self.transductive else support_x

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> FastWeights:
        adapted = deque(self.adaptation(params, support_x, support_y), maxlen=1)
        return adapted.pop()

    def predict(self, params: Params, adapted: FastWeights, query_x: Tensor) -> Tensor:
        rows = len(adapted.support_x)
        if not rows:
            return self.network(adapted.weights, query_x)
        with Rows(reference=rows):
            return self.network(adapted.weights, torch.cat([adapted.support_x, query_x]))[rows:]
