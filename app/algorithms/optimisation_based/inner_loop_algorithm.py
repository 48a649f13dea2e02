"""What the algorithms share that fit a network to a support set by gradient steps."""

import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from math import inf, isnan
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from app.backbones.pretrained import Pretrained
from app.backbones.rows import Rows
from app.episode import Episode
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.inner_loop.task_stack import stacking
from app.learners.meta_algorithm import MetaAlgorithm
from app.lightning_internals import attached_trainer
from app.scores.losses import LossName
from datamodules.base.episodic import EpisodicDataModule


class FastWeights(NamedTuple):
    """A network fitted to a support set.

    Attributes:
        weights: of the whole backbone, adapted or not.
        support_x: kept for predictions by the support set's statistics (non-transductive); without rows otherwise.
    """

    weights: Params
    support_x: Tensor


class InnerLoopAlgorithm(MetaAlgorithm):
    """Base of the algorithms whose `adaptation` is an inner loop: a subclass says which, and what of it the outer loop learns.

    Args:
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_steps: gradient steps at evaluation; null for `inner_steps`, of which in regression validation
            chooses how many.
        inner_loss: loss of the support set; null for cross_entropy in classification, mse in regression.
        inner_reduction: the support loss is the mean over its rows, or their sum (the papers' formulas).
    """

    def __init__(
        self,
        inner_steps: int = 1,
        eval_inner_steps: int | None = None,
        inner_loss: LossName | None = None,
        inner_reduction: Literal["mean", "sum"] = "mean",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_at_least(1, "model", inner_steps=inner_steps, eval_inner_steps=eval_inner_steps)
        self.inner_steps, self.eval_inner_steps = inner_steps, eval_inner_steps or inner_steps
        self.chooses_steps, self.chosen_steps = eval_inner_steps is None and self.task_type == "regression", None
        self.inner_loss, self.inner_reduction = self.loss_function("inner_loss", inner_loss), inner_reduction

    def check_data(self, data: EpisodicDataModule) -> None:
        super().check_data(data)
        if isinstance(self.net, Pretrained) and (reason := self.reason_against_training()):
            raise InputError(
                f"--model {type(self).__name__} differentiates all tasks' networks at once, and a layer of --model.backbone "
                f"Pretrained cannot be ({reason}); choose another network, or an algorithm such as ProtoNet"
            )

    def reason_against_training(self) -> str | None:
        """Why a layer of the network has no outer gradient, null where all have: found on a picture or two of noise."""
        x, y = torch.rand(2, 1, *self.input_shape), torch.zeros(2, 1, dtype=torch.long)
        try:
            with self.tried_out() as learner, stacking(self.stacking), warnings.catch_warnings():
                warnings.filterwarnings("error", "There is a performance drop")
                learner.train().outer_gradient(dict(learner.named_parameters()), self.as_dtype(Episode(x, y, x, y)))
        except (RuntimeError, NotImplementedError, UserWarning) as error:
            return " ".join(str(error).split())[:160]
        return None

    @abstractmethod
    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[FastWeights]:
        """Yields the network after each step of the inner loop, before the first one first."""

    # The number of steps that serves validation tasks best: a step size of training may be too large for the data of a test

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.chooses_steps and self.trainer.state.fn == "fit":
            errors = [inf if isnan(error) else error for error in self.evaluation["scores"][self.score_name]["mean"]]
            self.chosen_steps = self.evaluation["inner_steps"][errors.index(min(errors))]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["chosen_steps"] = self.chosen_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.chosen_steps = checkpoint.get("chosen_steps")
        trainer = attached_trainer(self)
        if self.chooses_steps and self.chosen_steps is not None and (trainer is None or trainer.state.fn != "fit"):
            self.eval_inner_steps = self.chosen_steps

    def describe_algorithm(self) -> dict[str, Any]:
        chosen = {"steps_chosen_by_validation": self.chosen_steps} if self.chosen_steps is not None else {}
        return super().describe_algorithm() | chosen

    @property
    def num_inner_steps(self) -> int:
        """Those of training, or those of evaluation."""
        return self.inner_steps if self.training else self.eval_inner_steps

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The support loss."""
        return self.inner_loss(outputs, targets, reduction=self.inner_reduction)

    def kept(self, support_x: Tensor) -> Tensor:
        """What a prediction needs of the support set besides the weights."""
        return support_x[:0] if self.transductive else support_x

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> FastWeights:
        adapted = deque(self.adaptation(params, support_x, support_y), maxlen=1)
        return adapted.pop()

    def predict(self, params: Params, adapted: FastWeights, query_x: Tensor) -> Tensor:
        return self.of_queries(self.net, adapted.weights, adapted, query_x)

    def of_queries(self, module: nn.Module, weights: Params, adapted: FastWeights, query_x: Tensor) -> Tensor:
        """What the network, or its body, makes of the queries, by its own statistics or those of the support set."""
        rows = len(adapted.support_x)
        if not rows:
            return functional_call(module, weights, (query_x,))
        with Rows(reference=rows):
            return functional_call(module, weights, (torch.cat([adapted.support_x, query_x]),))[rows:]
