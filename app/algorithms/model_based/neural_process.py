"""What all neural processes share: Gaussian predictions, their likelihood as loss and score, latent variables."""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from app.algorithms.model_based.gaussian import gaussian, kl_divergence, log_density, log_mean_exp, mixture, sample
from app.backbones import BackboneCallable
from app.episode import Episode
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.meta_algorithm import Metrics
from app.learners.stacked_algorithm import StackedAlgorithm
from app.scores.temperature import TWO_SIDED_95

Likelihood = Literal["per_point", "joint"]


def latent_gaussian(raw: Tensor) -> Tensor:
    """The Gaussian of z, its standard deviations between 0.1 and 1 (Le et al. 2018)."""
    return gaussian(raw, lambda spread: 0.1 + 0.9 * spread.sigmoid())


class NeuralProcess(StackedAlgorithm):
    """Base of the algorithms that map a context (the support set) to a Gaussian prediction at each target (the queries).

    `predict_tasks` returns means and then standard deviations, of shape (tasks, targets, 2 * output). The score is the
    log-likelihood per target point, in nats, summed over the dimensions of a target. Beside it stand the share of the targets
    that lie in their 95 % interval, `coverage`, and its mean `width`; in `test` after the temperature that validation chose.

    Args:
        backbone: builds the parts of the network from input_shape and output_size.
    """

    task_types = ("regression",)
    trains_on_context = True

    def __init__(self, backbone: BackboneCallable, **kwargs):
        super().__init__(backbone=backbone, outer_loss=None, transductive=False, **kwargs)

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        if len(self.input_shape) != 1:
            raise InputError(
                f"--model {type(self).__name__} takes vectors, the inputs of --data have shape {self.input_shape}; "
                "choose data of points, such as Sinusoid, or MAML"
            )
        return super().build_net(backbone)

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood per point: of context and targets where `trains_on_context`, else of the targets."""
        xc, yc, xt, yt = batch
        x, y = (torch.cat([xc, xt], 1), torch.cat([yc, yt], 1)) if self.trains_on_context else (xt, yt)
        adapted = self.adapt_tasks(params, xc, yc, first_episode)
        densities = log_density(self.predict_tasks(params, adapted, x, first_episode), y)
        return -densities.mean(-1), {self.score_name: densities[:, -yt.shape[1] :].mean(-1)}

    def outputs_and_likelihood(self, params: Params, adapted: Any, xt: Tensor, yt: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions, and the log-likelihood per target point of shape (tasks,)."""
        outputs = self.predict_tasks(params, adapted, xt)
        return outputs, log_density(outputs, yt).mean(-1)

    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        adapted = self.adapt_tasks(params, batch.support_x, batch.support_y, first_episode)
        outputs, log_likelihood = self.outputs_and_likelihood(params, adapted, batch.query_x, batch.query_y)
        mean, std = outputs.chunk(2, -1)
        errors, half_width = mean - batch.query_y, TWO_SIDED_95 * std * (self.temperature or 1.0 if split == "test" else 1.0)
        losses, _ = self.losses(params, batch, first_episode)
        scores = {
            self.score_name: log_likelihood,
            "mse": errors.square().mean((1, 2)),
            "coverage": (errors.abs() <= half_width).to(torch.float64).mean((1, 2)),
            "width": 2 * half_width.mean((1, 2)),
            "loss": losses,
        }
        return {0: scores}, outputs

    @property
    def score_name(self) -> str:
        return "log_likelihood"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return log_density(outputs, targets).mean()

    @property
    def monitor(self) -> tuple[str, str]:
        return f"val/{self.score_name}", "max"

    def describe_algorithm(self) -> dict[str, Any]:
        chosen = {"intervals": {"factor": self.temperature, "validation_tasks": self.validated_groups}}
        return super().describe_algorithm() | (chosen if self.temperature and self.validated_groups else {})


class LatentNeuralProcess(NeuralProcess):
    """Base of the neural processes with a latent variable z, one for all targets of a task (Garnelo et al. 2018).

    Training maximises a bound of the log-likelihood of all points: with one sample of z from q(z | context and targets), the
    evidence lower bound with KL(q(z | context and targets) || q(z | context)); with several, the importance-weighted bound
    (Burda et al. 2016), as the TNP paper's code does. The score takes samples of q(z | context).

    Args:
        num_train_samples: samples of z for the bound.
        num_eval_samples: samples of z for predictions and the score.
        likelihood: the score is the mean over the targets of log 1/K sum_k p(y_t | z_k), per_point, as in the TNP paper, or
            log 1/K sum_k prod_t p(y_t | z_k) over the number of targets, joint, which is the one that the bound bounds.
    """

    def __init__(self, num_train_samples: int = 1, num_eval_samples: int = 50, likelihood: Likelihood = "per_point", **kwargs):
        super().__init__(**kwargs)
        check_at_least(1, "model", num_train_samples=num_train_samples, num_eval_samples=num_eval_samples)
        self.num_train_samples, self.num_eval_samples, self.likelihood = num_train_samples, num_eval_samples, likelihood

    @abstractmethod
    def represent(self, params: Params, xc: Tensor, yc: Tensor) -> Any:
        """The deterministic representation of the contexts: a tensor, or a tuple of tensors."""

    @abstractmethod
    def latent(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """The Gaussian q(z | x, y), of shape (tasks, 2 * latent)."""

    @abstractmethod
    def decode(self, params: Params, representation: Any, z: Tensor, xt: Tensor) -> Tensor:
        """Gaussians of the targets given z of shape (tasks, samples, latent), of shape (tasks, samples, targets, 2 * output)."""

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> tuple[Any, Tensor]:
        """The representation and the samples of z: every prediction of a task takes the same."""
        z = self.draw(self.latent(params, support_x, support_y), self.num_eval_samples, first_episode)
        return self.represent(params, support_x, support_y), z

    def predict_tasks(self, params: Params, adapted: tuple[Any, Tensor], query_x: Tensor, first_episode: int = 0) -> Tensor:
        """Mean and standard deviation of the mixture over the samples."""
        return mixture(self.decode(params, *adapted, query_x), 1)

    def draw(self, latent: Tensor, num_samples: int, first_episode: int) -> Tensor:
        """Samples of shape (tasks, samples, latent) by the noise that belongs to each task."""
        shape = (num_samples, latent.shape[-1] // 2)
        # In float64 for every precision: the same numbers for all of them.
        noise = [
            torch.randn(shape, generator=generator, device=latent.device, dtype=torch.float64)
            for generator in self.generators(len(latent), first_episode)
        ]
        return sample(latent[:, None], torch.stack(noise).to(latent.dtype))

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        """Negative bound over the number of points, and the log-likelihood of the targets given z of all points."""
        xc, yc, xt, yt = batch
        x, y = torch.cat([xc, xt], 1), torch.cat([yc, yt], 1)
        prior, posterior = self.latent(params, xc, yc), self.latent(params, x, y)
        z = self.draw(posterior, self.num_train_samples, first_episode)
        densities = log_density(self.decode(params, self.represent(params, xc, yc), z, x), y[:, None])
        kl = kl_divergence(posterior, prior)
        if self.num_train_samples == 1:
            bound = densities.sum(-1)[:, 0] - kl
        else:
            weights = log_density(prior[:, None], z) - log_density(posterior[:, None], z)
            bound = log_mean_exp(densities.sum(-1) + weights, 1)
        return -bound / y.shape[1], {self.score_name: self._per_target(densities[..., -yt.shape[1] :]), "kl": kl}

    def outputs_and_likelihood(
        self, params: Params, adapted: tuple[Any, Tensor], xt: Tensor, yt: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs = self.decode(params, *adapted, xt)
        return mixture(outputs, 1), self._per_target(log_density(outputs, yt[:, None]))

    def _per_target(self, densities: Tensor) -> Tensor:
        """The multi-sample log-likelihood per target of log-densities of shape (tasks, samples, targets)."""
        if self.likelihood == "joint":
            return log_mean_exp(densities.sum(-1), 1) / densities.shape[-1]
        return log_mean_exp(densities, 1).mean(-1)

    def describe_algorithm(self) -> dict[str, Any]:
        return super().describe_algorithm() | {"likelihood": self.likelihood, "num_eval_samples": self.num_eval_samples}
