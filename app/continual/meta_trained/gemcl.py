"""Generative meta-continual learning."""

from math import isfinite, log
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm, num_classes
from app.continual.meta_trained.deployment import class_means, one_hot
from app.episode import Episode
from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.kept_sums import KeepsSums
from app.scores.losses import accuracy

CHUNK = 100  # held-out images whose densities under all classes are in memory together


class Posterior(NamedTuple):
    """Normal-Gamma posteriors of the classes of each task, feature by feature.

    Attributes:
        mean: of shape (tasks, classes, features).
        count: images of each class, of shape (tasks, classes, 1).
        alpha: shape of the precision's Gamma distribution, of shape (tasks, classes, 1).
        prior_beta: its rate before the first image, of shape (tasks, 1, 1).
        growth: what the images added to the rate, as a share of `prior_beta`, of shape (tasks, classes, features).
    """

    mean: Tensor
    count: Tensor
    alpha: Tensor
    prior_beta: Tensor
    growth: Tensor

    @property
    def beta(self) -> Tensor:
        """The rate, of shape (tasks, classes, features)."""
        return self.prior_beta * (1 + self.growth)


class GeMCL(KeepsSums, DeployedAlgorithm):
    """Learns features that are independent Gaussians in each class, and classifies by Bayes' rule (Banayeeanzade et al. 2021).

    Mean and precision of each feature in each class have a Normal-Gamma prior, flat in the mean, with a learned alpha and beta.
    After n images of a class its mean is theirs, alpha' = alpha + n / 2, beta' = beta + half the sum of squared deviations:
    nothing depends on the order of the stream, no gradient is taken at deployment. Beside it, accuracy_sgd and the others say
    what a head by gradient descent makes of the same features.

    Args:
        predictive: student_t: the posterior predictive density; map: a Gaussian with the most probable mean and precision.
        alpha: its initial value, above 0.
        beta: its initial value, above 0.
    """

    sgd = "_sgd"

    def __init__(
        self, predictive: Literal["student_t", "map"] = "student_t", alpha: float = 100.0, beta: float = 1000.0, **kwargs
    ):
        super().__init__(**kwargs)
        for option, value in (("alpha", alpha), ("beta", beta)):
            if not (isfinite(value) and value > 0):
                raise InputError(f"--model.{option} is {value}; give a number above 0")
        self.predictive = predictive
        self.log_alpha, self.log_beta = (nn.Parameter(torch.tensor(log(value))) for value in (alpha, beta))

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Posterior:
        classes = self.train_output_size if self.training else num_classes(support_y)
        features = self.encode(params, support_x, first_episode)[..., :-1]
        with self.full_precision():
            return self.posterior(params, features, support_y, classes)

    def posterior(self, params: Params, features: Tensor, labels: Tensor, classes: int) -> Posterior:
        """Of features of shape (tasks, rows, features) with labels of shape (tasks, rows)."""
        members = one_hot(labels, classes, features)
        count, mean = members.sum(1)[..., None], class_means(features, labels, classes)
        deviations = features - members @ mean  # each row's own mean: the gradient of a lookup adds up in any order on a GPU
        alpha, beta = params["log_alpha"].exp() + count / 2, params["log_beta"].exp().expand(len(features), 1, 1)
        return Posterior(mean, count, alpha, beta, members.mT @ deviations.square() / (2 * beta))

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        features = self.encode(params, x[None])[0, :, :-1].double()
        return torch.cat([features, features.square()], -1)

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Posterior:
        totals, squares = sums.chunk(2, -1)
        mean, beta = totals / counts, params["log_beta"].exp().expand(1, 1)
        growth = (squares - totals * mean).clamp(min=0) / (2 * beta)
        return Posterior(mean, counts, params["log_alpha"].exp() + counts / 2, beta, growth)

    def predict_tasks(self, params: Params, adapted: Posterior, query_x: Tensor, first_episode: int = 0) -> Tensor:
        return self.log_densities(adapted, self.encode(params, query_x, first_episode)[..., :-1])

    def log_densities(self, posterior: Posterior, features: Tensor) -> Tensor:
        """Log densities of the features under each class but for a term that all share, of shape (tasks, rows, classes).

        Left out is the prior's -log(2 pi beta) / 2 of each feature: beside it float32 would lose what tells classes apart.
        """
        if self.training or torch.compiler.is_exporting():  # a program for any number of images has no chunks
            return self._log_densities(posterior, features)
        return torch.cat([self._log_densities(posterior, rows) for rows in features.split(CHUNK, 1)], 1)

    def _log_densities(self, posterior: Posterior, features: Tensor) -> Tensor:
        mean, count, alpha, prior_beta, growth = (tensor[:, None] for tensor in posterior)  # an axis for the rows
        squares = (features[:, :, None] - mean).square() / (2 * prior_beta * (1 + growth))
        if self.predictive == "map":
            shape = alpha - 0.5
            return (shape.log() / 2 - growth.log1p() / 2 - shape * squares).sum(-1)
        odds = count / (count + 1)
        constant = torch.lgamma(alpha + 0.5) - torch.lgamma(alpha) + odds.log() / 2
        return (constant - growth.log1p() / 2 - (alpha + 0.5) * torch.log1p(odds * squares)).sum(-1)

    @torch.no_grad()
    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        adapted = self.adapt_tasks(params, batch.support_x, batch.support_y, first_episode)
        outputs = self.predict_tasks(params, adapted, batch.query_x, first_episode)
        learned = self.predict_tasks(params, adapted, batch.support_x, first_episode)
        losses, own = self.loss_and_score(outputs, batch.query_y)
        own |= {"train_accuracy": vmap(accuracy)(learned, batch.support_y), "loss": losses}
        by_descent, _ = super().evaluate_tasks(params, batch, split, first_episode)
        return {0: own | by_descent[0]}, outputs
