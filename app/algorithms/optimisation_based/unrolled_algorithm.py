"""What the algorithms share whose outer gradient passes through the steps of the inner loop."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from torch import Tensor
from torch.func import functional_call

from app.algorithms.optimisation_based.inner_loop_algorithm import FastWeights, InnerLoopAlgorithm
from app.episode import Episode
from app.errors import InputError
from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.inner_optimizers import inner_optimizer as optimizer_of
from app.inner_loop.params import Params, detached
from app.inner_loop.step_rules import StepRule
from app.learners.compiled_gradient import CompiledGradient
from app.learners.meta_algorithm import Metrics
from app.learners.suitability import check_equal_sizes
from datamodules.base.episodic import EpisodicDataModule


class Support(NamedTuple):
    """All tensors but the adapted weights that the support loss depends on.

    Attributes:
        frozen: the network's weights that are not adapted.
        inputs: of the support set, or their features where the body does not change.
        targets: of the support set.
    """

    frozen: Params
    inputs: Tensor
    targets: Tensor


class UnrolledAlgorithm(InnerLoopAlgorithm):
    """Base of MAML and its kin: a subclass says which weights the inner loop adapts, and by which rule.

    Args:
        first_order: the outer gradient ignores how the inner gradients depend on the initialisation.
        inner_optimizer: what the inner loop makes of its gradients; the outer gradient passes through momentum and adam too.
        inner_momentum: momentum, or adam's beta1, from 0 to below 1.
        checkpoint_inner_steps: keeps the weights of each inner step alone and computes the step once more for the outer
            gradient, which is the same: the memory is about that of one step, the time half to nine tenths more.
        hypergradient: how the outer gradient passes through the inner loop: unrolled, by a graph of all its steps; or mixed, by
            one product with a Hessian a step, of forward and reverse mode together (Kemaev et al. 2025, MixFlow-MG), which keeps
            the weights of each step alone: the same gradient, about the memory of one step, a fifth to two thirds more time.
        backtracks: at evaluation a step that does not lower the support loss is shortened, down to none, so that no task diverges
            whose numbers are far from those of training.
        compile: the gradient of a chunk of tasks becomes one compiled program, on a GPU a CUDA graph; the first step then takes a
            C++ compiler and up to minutes. On the CPU it pays for small networks without convolutions, whose step takes a
            quarter of the time; for convolutional ones it is experimental: from a tenth faster to a tenth slower.

    Attributes:
        step_sizes: the rule of the inner loop.
    """

    step_sizes: StepRule

    def __init__(
        self,
        first_order: bool = False,
        inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd",
        inner_momentum: float = 0.9,
        checkpoint_inner_steps: bool = False,
        hypergradient: Literal["unrolled", "mixed"] = "unrolled",
        backtracks: bool = False,
        compile: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if checkpoint_inner_steps and compile:
            raise InputError(
                "--model.checkpoint_inner_steps true computes twice what --model.compile true computes once; leave one out"
            )
        self.first_order, self.checkpoint_inner_steps = first_order, checkpoint_inner_steps
        self.hypergradient, self.backtracks = hypergradient, backtracks
        if hypergradient == "mixed":
            self._check_mixed(compile)
        self.inner_optimizer = optimizer_of(inner_optimizer, inner_momentum)
        self._compiled_gradient = CompiledGradient(self, super().chunk_gradient) if compile else None

    def _check_mixed(self, compile: bool) -> None:
        """Raises an InputError where an option leaves nothing to differentiate in mixed mode, or cannot go with it."""
        against = {
            "first_order true has no second derivatives": self.first_order,
            "checkpoint_inner_steps true saves the same memory": self.checkpoint_inner_steps,
            "compile true compiles a graph of all steps": compile,
            "stacking off leaves no stack of tasks to differentiate": self.stacking == "off",
        }
        for reason, holds in against.items():
            if holds:
                raise InputError(f"--model.hypergradient mixed: --model.{reason}; leave one of the two out")

    def check_data(self, data: EpisodicDataModule) -> None:
        if self.hypergradient == "mixed" and (reason := self.reason_against_training()):
            raise InputError(
                f"--model.hypergradient mixed has no slope for a layer of --model.backbone {type(self.net).__name__} ({reason}); "
                "leave it out"
            )
        super().check_data(data)
        if self._compiled_gradient and "train" in data.used_splits:
            check_equal_sizes(data)

    def chunk_gradient(self, params: Params, chunk: Episode, first_episode: int = 0) -> tuple[tuple[Tensor, ...], Metrics]:
        return (self._compiled_gradient or super().chunk_gradient)(params, chunk)

    # What the inner loop changes

    @abstractmethod
    def adapted_weights(self) -> Params:
        """The network's own weights that the inner loop changes, by the network's names."""

    def starting_weights(self, params: Params, support_x: Tensor, support_y: Tensor) -> Params:
        """The network before the first step; weights that are missing are as it has them."""
        return self.net_params(params)

    def weights_at(self, step: int, weights: Params) -> Params:
        """The network's weights in an inner step, of adapted and frozen ones."""
        return weights

    @property
    def body_is_fixed(self) -> bool:
        """Whether the features do not change from step to step."""
        return False

    def learned_step_sizes(self) -> Params:
        return self.step_sizes.learned_sizes()

    # The inner loop

    def inner_loop(self) -> InnerLoop:
        """The inner loop, as training or evaluation has it."""
        return InnerLoop(
            self.support_loss,
            self.step_sizes,
            self.inner_optimizer,
            first_order=self.first_order,
            recompute=self.checkpoint_inner_steps and self.training,
            mixed=self.hypergradient == "mixed" and self.training and not self.first_order,
            precision=self.inner_autocast(),
            backtracks=self.backtracks and not self.training,
        )

    def support_loss(self, weights: Params, support: Support, step: int) -> Tensor:
        """What the inner loop descends on."""
        if self.body_is_fixed:
            outputs = functional_call(self.net.head, part_of("head", weights), (support.inputs,))
        else:
            outputs = self.network(self.weights_at(step, support.frozen | weights), support.inputs)
        return self.loss_of(outputs, support.targets)

    def support(self, frozen: Params, support_x: Tensor, support_y: Tensor) -> Support:
        """The support set as the inner loop takes it."""
        frozen = detached(frozen) if self.first_order else frozen
        if self.body_is_fixed:
            with self.inner_autocast():
                support_x = functional_call(self.net.body, part_of("body", frozen), (support_x,))
            frozen = {}
        return Support(frozen, support_x, support_y)

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        start, adapted = self.starting_weights(params, support_x, support_y), self.adapted_weights()
        frozen = {name: weight for name, weight in start.items() if name not in adapted}
        initial = {name: start.get(name, own) for name, own in adapted.items()}
        support, rule_params = self.support(frozen, support_x, support_y), self.module_params("step_sizes", params)
        states = self.inner_loop().states(initial, self.num_inner_steps, support, rule_params)
        for step, state in enumerate(states):
            yield FastWeights(self.weights_at(max(step - 1, 0), frozen | state.weights), self.kept(support_x))

    def outputs_at(self, stages: Iterator[tuple[int, Any]], params: Params, query_x: Tensor) -> Iterator[tuple[int, Tensor]]:
        if not self.body_is_fixed:
            yield from super().outputs_at(stages, params, query_x)
            return
        features = None  # the same at every stage
        for stage, adapted in stages:
            if features is None:
                features = self.of_queries(self.net.body, part_of("body", adapted.weights), adapted, query_x)
            yield stage, functional_call(self.net.head, part_of("head", adapted.weights), (features,))


def part_of(module: str, weights: Params) -> Params:
    """The weights of the network's body or head, named as in it."""
    return {name.removeprefix(f"{module}."): weight for name, weight in weights.items() if name.startswith(f"{module}.")}
