"""The baseline of few-shot classification."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.logistic_regression import logistic_regression
from app.algorithms.metric_based.protonet import class_means
from app.episode import Episode
from app.errors import check_at_least, check_finite
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.meta_algorithm import Metrics
from app.learners.stages import stages_to_score
from app.scores.losses import widened
from app.scores.tally import StageScores

MOMENTUM, DAMPENING, WEIGHT_DECAY = 0.9, 0.9, 1e-3


class Baseline(EmbeddingAlgorithm):
    """Learns all training classes at once, then fits a new linear head to each support set (Chen et al. 2019, section 3.2).

    Training is ordinary classification: a task is a share of the batch, its support set and queries together, and normalised
    by themselves; with many classes a task (`train_ways`) that is batch normalisation. In evaluation the features stay as
    they are, and a head, drawn once for all tasks as torch.nn.Linear does, is fitted by the authors' gradient descent:
    momentum 0.9, dampening 0.9, weight decay 0.001. A step takes the whole support set, not 4 images as theirs does.

    Args:
        inner_lr: step size of the head's gradient descent.
        eval_inner_steps: its steps.
        eval_head: how the head is fitted to a support set: descent, as above; or without steps, on features of length 1: the
            optimum of logistic regression with a weight penalty of 1 (RFS, Tian et al. 2020); or centroid, ten times the cosine
            to the means of the classes' features (Classifier-Baseline, Chen et al. 2021).
        transductive: the support set, and the queries, of a test task are normalised by their own statistics; else by the
            running statistics of training.
    """

    global_labels = True
    has_bias = True

    def __init__(
        self,
        inner_lr: float = 0.01,
        eval_inner_steps: int = 100,
        eval_head: Literal["descent", "logistic", "centroid"] = "descent",
        transductive: bool = False,
        **kwargs,
    ):
        super().__init__(transductive=transductive, **kwargs)
        check_finite("model", inner_lr=inner_lr)
        check_at_least(1, "model", eval_inner_steps=eval_inner_steps)
        self.inner_lr, self.eval_inner_steps, self.eval_head = inner_lr, eval_inner_steps, eval_head
        self.head = nn.Linear(self.net.num_features, self.train_output_size, bias=self.has_bias)

    def logits(self, head: Params, features: Tensor) -> Tensor:
        """Of shape (tasks, rows, classes), by heads with or without a task axis."""
        return features @ head["weight"].mT + head["bias"][..., None, :]

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        if not self.training:
            return super().losses(params, batch, first_episode)
        _, outputs, labels = self.class_outputs(params, batch, first_episode)
        return self.loss_and_score(outputs, labels)

    def class_outputs(self, params: Params, batch: Episode, first_episode: int) -> tuple[Tensor, Tensor, Tensor]:
        """All pictures of training tasks, what the network makes of them, of shape (tasks, rows, classes), and their classes."""
        images, labels = torch.cat([batch.support_x, batch.query_x], 1), torch.cat([batch.support_y, batch.query_y], 1)
        head = {name: params[f"head.{name}"] for name, _ in self.head.named_parameters()}
        return images, self.logits(head, widened(self.embed(params, images, first_episode))), labels

    # Evaluation

    @property
    def _encodes_together(self) -> bool:
        return False

    def descent(self, features: Tensor, labels: Tensor) -> Iterator[Params]:
        """Yields the heads of a stack of tasks after 0, 1, ..., eval_inner_steps steps."""
        features = widened(features)
        if self.eval_head != "descent":
            yield (self.logistic if self.eval_head == "logistic" else self.centroids)(features, labels)
            return
        head, velocity = self.initial_heads(features), None

        def loss(head: Params) -> Tensor:
            return vmap(self.outer_loss)(self.logits(head, features), labels).sum()

        yield head
        for _ in range(self.eval_inner_steps):
            with self.full_precision():
                gradient = torch.func.grad(loss)(head)
            gradient = {name: gradient[name] + WEIGHT_DECAY * weight for name, weight in head.items()}
            if velocity is None:
                velocity = gradient
            else:
                velocity = {name: MOMENTUM * velocity[name] + (1 - DAMPENING) * gradient[name] for name in head}
            head = {name: weight - self.inner_lr * velocity[name] for name, weight in head.items()}
            yield head

    def logistic(self, features: Tensor, labels: Tensor) -> Params:
        """The heads of a stack of tasks at the optimum."""
        with self.full_precision():
            weights, biases = logistic_regression(F.normalize(features, dim=-1), self.one_hot(labels, features))
        return {"weight": weights.mT, "bias": biases}

    def centroids(self, features: Tensor, labels: Tensor) -> Params:
        """Heads whose logits of features of length 1 are ten times the cosine to the means of the classes."""
        means = class_means(features, self.one_hot(labels, features))
        return {"weight": 10.0 * F.normalize(means, dim=-1), "bias": torch.zeros_like(means[..., 0])}

    def initial_heads(self, features: Tensor) -> Params:
        """A head for each task, uniform in +-1 / sqrt(features); one draw for all, so that `predict` says what `test` does."""
        bound, generator = features.shape[-1] ** -0.5, torch.Generator().manual_seed(0)  # on the CPU: the same on every device
        shapes = {name: (self.output_size, *weight.shape[1:]) for name, weight in self.head.named_parameters()}
        # The same numbers in every precision.
        drawn = {name: torch.rand(shape, generator=generator, dtype=torch.float32) for name, shape in shapes.items()}
        heads = {name: bound * (2 * weight.to(features) - 1) for name, weight in drawn.items()}
        return {name: weight.expand(len(features), *weight.shape) for name, weight in heads.items()}

    def fit_head(self, params: Params, features: Tensor, labels: Tensor) -> Params:
        *_, last = self.descent(features, labels)
        return last

    def head_outputs(self, params: Params, head: Params, features: Tensor) -> Tensor:
        with self.full_precision():
            if self.eval_head != "descent":
                return Baseline.logits(self, head, F.normalize(widened(features), dim=-1))
            return self.logits(head, widened(features))

    def adaptation(self, params: Params, support_x: Tensor, support_y: Tensor) -> Iterator[Params]:
        for head in self.descent(self.embed(params, support_x[None]), support_y[None]):
            yield {name: weight[0] for name, weight in head.items()}

    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        queries = self.embed(params, batch.query_x)  # once, not at every stage
        scores: StageScores = {}
        for stage, head in stages_to_score(self.descent(self.embed(params, batch.support_x), batch.support_y), split):
            outputs = self.head_outputs(params, head, queries)
            losses, scores[stage] = self.loss_and_score(outputs, batch.query_y)
            scores[stage]["loss"] = losses
        return scores, outputs
