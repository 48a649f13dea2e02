"""MAML++."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable
from torch import Tensor, nn

from app.algorithms.optimisation_based.maml import MAML
from app.backbones.task_batch_norm import norm_parameters
from app.episode import Episode
from app.errors import InputError
from app.inner_loop.params import Params
from app.inner_loop.step_rules import LayerwiseStep
from app.learners.lr_schedule import CosineDecay
from app.learners.meta_algorithm import Metrics
from app.lightning_internals import attached_trainer

LEAST_IMPORTANCE = 0.03  # of a step before the last, as a share of 1 / steps (the authors' program)


class MAMLPP(MAML):
    """MAML with what makes its training stable, each part a switch of its own (Antoniou, Edwards, Storkey 2019).

    With `multi_step_share` and `first_order_share` 0, `learned_step_sizes` and `per_step_norms` false and `lr_scheduler` null it
    is MAML. Derivative-order annealing is off, as in the authors' configurations. Their norms keep running statistics of each
    step as well, which their program never uses: a task is normalised by itself, and so it is here.

    Args:
        inner_lr: step size of the inner loop, of all layers and steps at the start.
        inner_steps: gradient steps of the inner loop in training.
        multi_step_share: share of the run during which the outer loss is a weighted sum over the inner steps, whose weight
            moves to the last; 0 for the loss after the last step alone.
        learned_step_sizes: a step size for every weight tensor and step is learned; else `inner_lr`.
        per_step_norms: weights and biases of the norms are learned for every step, and not adapted; else adapted as the rest.
        first_order_share: share of the run, its first, with first-order gradients; 0 for none.
        lr_scheduler: of the outer learning rate.
    """

    def __init__(
        self,
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        multi_step_share: float = 0.1,
        learned_step_sizes: bool = True,
        per_step_norms: bool = True,
        first_order_share: float = 0.0,
        lr_scheduler: LRSchedulerCallable | None = CosineDecay,
        **kwargs,
    ):
        self.per_step_norms = per_step_norms
        super().__init__(inner_lr=inner_lr, inner_steps=inner_steps, compile=False, lr_scheduler=lr_scheduler, **kwargs)
        for option, share in (("multi_step_share", multi_step_share), ("first_order_share", first_order_share)):
            if not 0 <= share <= 1:
                raise InputError(f"--model.{option} is {share}; give a number from 0 to 1")
        eval_lr = self.step_sizes.eval_lr
        if learned_step_sizes and eval_lr != inner_lr:
            raise InputError(
                f"--model.eval_inner_lr {eval_lr} has no effect where step sizes are learned; leave it out, or give "
                "--model.learned_step_sizes false"
            )
        self.multi_step_share, self.first_order_share = multi_step_share, first_order_share
        self._always_first_order, self._progress = self.first_order, 0.0
        if learned_step_sizes:
            self.step_sizes = LayerwiseStep(self.adapted_weights(), inner_lr, inner_steps)
        # The network's own are those of the first step.
        weights = dict(self.net.named_parameters())
        names = self._norm_names() if inner_steps > 1 else []
        self._norms = {name: f"later_norms.{position}" for position, name in enumerate(names)}
        self.later_norms = nn.ParameterList(weights[name].detach().repeat(inner_steps - 1, 1) for name in self._norms)

    def _norm_names(self) -> list[str]:
        """Names of the weights that have a value for each step."""
        return norm_parameters(self.net) if self.per_step_norms else []

    def adapted_weights(self) -> Params:
        norms = set(self._norm_names())
        return {name: weight for name, weight in super().adapted_weights().items() if name not in norms}

    def starting_weights(self, params: Params, support_x: Tensor, support_y: Tensor) -> Params:
        return super().starting_weights(params, support_x, support_y) | {key: params[key] for key in self._norms.values()}

    def weights_at(self, step: int, weights: Params) -> Params:
        """The network's weights in an inner step; norms of steps beyond those of training are those of the last."""
        weights, row = dict(weights), min(step, self.inner_steps - 1) - 1
        later = {name: weights.pop(key) for name, key in self._norms.items()}
        return weights if row < 0 else weights | {name: rows[row] for name, rows in later.items()}

    @property
    def body_is_fixed(self) -> bool:
        return super().body_is_fixed and not self._norms

    def importance(self) -> list[float]:
        """Weights of the query losses after each inner step: equal at the start of the run, then moving to the last."""
        steps, done = self.inner_steps, self._progress / self.multi_step_share
        earlier = max(1 - done, LEAST_IMPORTANCE) / steps
        return [earlier] * (steps - 1) + [1 - (steps - 1) * earlier]

    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        self._progress = self.progress() if attached_trainer(self) else 0.0
        self.first_order = self._always_first_order or self._progress < self.first_order_share
        return super().outer_gradient(params, batch, first_episode)

    def task_loss(self, params: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        if not self.training or self._progress >= self.multi_step_share:
            return super().task_loss(params, episode)
        _, *stages = self.adaptation(params, episode.support_x, episode.support_y)
        outputs = [found for _, found in self.outputs_at(enumerate(stages), params, episode.query_x)]
        losses = torch.stack([self.outer_loss(at_stage, episode.query_y) for at_stage in outputs])
        loss = sum(weight * loss for weight, loss in zip(self.importance(), losses, strict=True))
        return loss, {"outer_loss": losses[-1], self.score_name: self.score(outputs[-1], episode.query_y)}
