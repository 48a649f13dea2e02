"""The Neural Statistician."""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from app.algorithms.model_based.gaussian import kl_divergence, sample, standard
from app.algorithms.model_based.pose import posed
from app.algorithms.model_based.statistician_networks import StatisticianNetworks
from app.backbones.rows import Rows
from app.episode import Episode
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.kept_sums import KeepsSums
from app.learners.meta_algorithm import Metrics
from app.learners.stacked_algorithm import StackedAlgorithm
from app.lightning_internals import attached_trainer
from app.scores.losses import accuracy


class Noise(NamedTuple):
    """All random numbers of a stack of tasks.

    Attributes:
        dropout: uniform in [0, 1), of shape (tasks, images).
        pose: uniform in [0, 1), of shape (tasks, classes, 4).
        context: standard normal, of shape (tasks, classes, context_size).
        latents: standard normal, one of shape (tasks, images, latent_size) for each stochastic layer.
    """

    dropout: Tensor
    pose: Tensor
    context: Tensor
    latents: list[Tensor]


class NeuralStatistician(KeepsSums, StackedAlgorithm):
    """A generative model of sets, that classifies by whose context a query's is nearest to (Edwards and Storkey 2017).

    All images of a class in a task are one set D. Its context is c of N(0, I), and each image x of it is drawn from latents
    z_L, ..., z_1 of p(z_l | z_l+1, c), its pixels from independent Bernoulli variables of means p(x | z, c). The outer loss is
    the negative variational bound of log p(D) in nats an image, with posteriors q(c | D) and q(z_l | z_l+1, c, x). A query x
    belongs to the class with the least KL(q(c | support set) || q(c | x)).

    The networks are those of the authors' program. In training their norms take the statistics of all sets of a task, so a task
    should have many (`train_ways`; the program's batch is 32 sets); in evaluation running statistics, and nothing is classified
    in training. Training weighs reconstruction by 1 + alpha and divergences by 1 / (1 + alpha), where alpha falls from 1 to 0;
    `bound`, and the loss at evaluation, are without weights.

    Args:
        context_size: components of the context c.
        latent_size: components of each latent z.
        num_latents: stochastic layers z_1, ..., z_L.
        hidden_size: units of every fully connected hidden layer.
        num_layers: layers of the residual block in each network of a latent.
        width: channels of the first of three convolutional levels; they double at each.
        pixels: grey: values in [0, 1] stand for the Bernoulli variables, as in the authors' program, so the bound is no
            likelihood of grey images; binary: pixels are 1 above 0.5 and 0 below, and the bound is one of their likelihood.
        set_dropout: share of a set's images that q(c | D) does not see in training, at least one stays. It then sees how many
            they are, too. In the authors' program it is switched off.
        posed_share: share of the training sets whose images are all mirrored or not, up and down or across, and turned by an
            angle; half of them in the authors' program.
        alpha_half_life: outer steps in which alpha halves; 0 for alpha = 0, the bound itself.
    """

    task_types = ("classification",)
    any_ways = True
    needs_pixels = True

    def __init__(
        self,
        context_size: int = 512,
        latent_size: int = 16,
        num_latents: int = 1,
        hidden_size: int = 256,
        num_layers: int = 3,
        width: int = 64,
        pixels: Literal["grey", "binary"] = "grey",
        set_dropout: float = 0.0,
        posed_share: float = 0.0,
        alpha_half_life: int = 500,
        **kwargs,
    ):
        sizes = {
            "context_size": context_size,
            "latent_size": latent_size,
            "num_latents": num_latents,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "width": width,
        }
        check_at_least(1, "model", **sizes)
        if not 0 <= set_dropout < 1:
            raise InputError(f"--model.set_dropout is {set_dropout}; give at least 0 and less than 1")
        check_at_least(0, "model", alpha_half_life=alpha_half_life)
        if not 0 <= posed_share <= 1:
            raise InputError(f"--model.posed_share is {posed_share}; give at least 0 and at most 1")
        networks = partial(StatisticianNetworks, **sizes, sees_size=set_dropout > 0)
        super().__init__(backbone=networks, outer_loss=None, transductive=False, **kwargs)
        self.context_size, self.latent_size, self.num_latents = context_size, latent_size, num_latents
        self.pixels, self.alpha_half_life = pixels, alpha_half_life
        self.set_dropout, self.posed_share = set_dropout, posed_share

    def build_net(self, backbone: Any) -> StatisticianNetworks:
        return self.with_running_statistics(backbone(self.input_shape, None))

    # Classification

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Tensor:
        """Context posteriors of the classes, of shape (tasks, ways, 2 * context_size): means, then standard deviations."""
        features = self._features(params, self._targets(support_x))
        return self.part(params, "statistic", features, self._membership(support_y, features))

    def predict_tasks(self, params: Params, adapted: Tensor, query_x: Tensor, first_episode: int = 0) -> Tensor:
        return self._logits(params, adapted, self._features(params, self._targets(query_x)))

    def _logits(self, params: Params, classes: Tensor, features: Tensor) -> Tensor:
        queries = self.part(params, "statistic", features)  # each a set of its own
        return -kl_divergence(classes[:, None], queries[:, :, None])

    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        return self.part(params, "statistic.before", self._features(params, self._targets(x[None])))[0]

    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Tensor:
        inputs = torch.cat([sums / counts, 1 / counts], -1) if self.net.statistic.sees_size else sums / counts
        return self.part(params, "statistic.after", inputs.to(next(iter(params.values())))[None])[0]

    # The bound

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        tasks, rows = len(batch.query_x), batch.support_x.shape[1]
        labels = torch.cat([batch.support_y, batch.query_y], 1)
        images = torch.cat([batch.support_x, batch.query_x], 1)
        membership = self._membership(labels, images)
        noise = self._noise(tasks, *membership.shape[1:], first_episode)
        targets = self._targets(self._posed(images, labels, noise.pose))
        with Rows(num_tasks=tasks):
            features = self._features(params, targets)
            reconstruction, context, latents = self.bound_terms(params, targets, features, membership, noise)
        alpha = self._alpha()
        metrics = {"bound": reconstruction - context - latents, "context_divergence": context, "latent_divergence": latents}
        if not self.training:
            classes = self.part(params, "statistic", features[:, :rows], membership[:, :rows])
            metrics[self.score_name] = vmap(accuracy)(self._logits(params, classes, features[:, rows:]), batch.query_y)
        return (context + latents) / (1 + alpha) - (1 + alpha) * reconstruction, metrics

    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        losses, metrics = self.losses(params, batch, first_episode)
        return {0: {**metrics, "loss": losses}}, None

    def bound_terms(
        self, params: Params, targets: Tensor, features: Tensor, membership: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, divergence of the contexts and of the latents, each of shape (tasks,), in nats an image.

        Args:
            params: meta-parameters.
            targets: pixels in [0, 1], of shape (tasks, images, *image).
            features: of the images, of shape (tasks, images, features).
            membership: which image is in which set, of shape (tasks, images, sets).
            noise: of these tasks.
        """
        context = self.part(params, "statistic", features, self._kept(membership, noise.dropout))
        divergence = kl_divergence(context, standard(context))
        contexts = membership.to(context) @ sample(context, noise.context)  # of the set of each image
        latents, latent_divergence = [], 0
        for layer, layer_noise in enumerate(noise.latents):
            above = (contexts, *latents[-1:])
            posterior = self.part(params, f"posterior.{layer}", *above, features)
            prior = self.part(params, f"prior.{layer}", *above)
            latents.append(sample(posterior, layer_noise))
            latent_divergence = latent_divergence + kl_divergence(posterior, prior).mean(1)
        logits = self._decode(params, contexts, latents)
        reconstruction = -F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
        return reconstruction.flatten(2).sum(2).mean(1), divergence.sum(1) / targets.shape[1], latent_divergence

    def _decode(self, params: Params, contexts: Tensor, latents: list[Tensor]) -> Tensor:
        vectors = (contexts, torch.cat(latents, -1))
        return self.part(params, "decoder", *(vector.flatten(0, 1) for vector in vectors)).unflatten(0, contexts.shape[:2])

    def _posed(self, images: Tensor, labels: Tensor, uniform: Tensor) -> Tensor:
        """The images of the training sets, each set in its pose."""
        if not self.training or not self.posed_share:
            return images
        of_images = uniform.take_along_dim(labels[..., None], 1)
        return posed(images.flatten(0, 1), of_images.flatten(0, 1), self.posed_share).view_as(images)

    def _kept(self, membership: Tensor, uniform: Tensor) -> Tensor:
        """The membership of the images that the posterior of the context sees."""
        if not self.training or not self.set_dropout:
            return membership
        drawn = torch.where(membership > 0, uniform[..., None], -1.0)
        return ((drawn >= self.set_dropout) | (drawn == drawn.amax(1, keepdim=True))).to(membership)

    def _alpha(self) -> float:
        if not self.training or not self.alpha_half_life:
            return 0.0
        trainer = attached_trainer(self)
        return 0.5 ** ((trainer.global_step if trainer else 0) / self.alpha_half_life)

    def _noise(self, tasks: int, images: int, classes: int, first_episode: int) -> Noise:
        # In float32 whatever the precision of the weights: another dtype would be other numbers.
        shapes = [(classes, self.context_size), *[(images, self.latent_size)] * self.num_latents]
        options = {"dtype": torch.float32, "device": self.device}
        drawn = []
        for own in self.generators(tasks, first_episode):
            normal = [torch.randn(shape, generator=own, **options) for shape in shapes]
            uniform = [torch.rand(shape, generator=own, **options) for shape in ((images,), (classes, 4))]
            drawn.append([*uniform, *normal])
        dropout, pose, *normal = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        context, *latents = (part.to(next(self.parameters()).dtype) for part in normal)
        return Noise(dropout, pose, context, latents)

    # Samples

    @torch.no_grad()
    def sample(self, params: Params, adapted: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """New images of each class of one task, as the means of their pixels, of shape (classes, count, *image).

        Args:
            params: meta-parameters.
            adapted: what `adapt` returned; the context is the mean of its posterior.
            count: images of each class.
            generator: of the latents, on the module's device.
        """
        contexts = adapted.chunk(2, -1)[0][:, None].expand(-1, count, -1)
        latents: list[Tensor] = []
        for layer in range(self.num_latents):
            prior = self.part(params, f"prior.{layer}", contexts, *latents[-1:])
            noise = torch.randn(len(prior), count, self.latent_size, generator=generator, device=self.device)
            latents.append(sample(prior, noise.to(prior)))
        return self._decode(params, contexts, latents).sigmoid()

    # Small things

    def _features(self, params: Params, images: Tensor) -> Tensor:
        return self.part(params, "encoder", images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def _targets(self, images: Tensor) -> Tensor:
        return images if self.pixels == "grey" else (images > 0.5).to(images)

    def _membership(self, labels: Tensor, like: Tensor) -> Tensor:
        return F.one_hot(labels, self.ways).to(like)
