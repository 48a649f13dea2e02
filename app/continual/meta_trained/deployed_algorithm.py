"""What the algorithms share that are trained once, then learn long streams of new classes with their features frozen."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from math import isfinite, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from app.backbones import BackboneCallable
from app.backbones.rows import Rows
from app.continual.meta_trained.deployment import class_means, deployed_heads, fresh_rows, nearest_mean, with_constant
from app.episode import Episode
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.stacked_algorithm import StackedAlgorithm
from app.lightning_internals import attached_trainer
from app.scores.losses import accuracy, widened


class DeployedAlgorithm(StackedAlgorithm):
    """Base of the algorithms whose evaluation is a stream: a new head is fitted to the frozen features, image after image.

    The support set of a test episode is the stream, in its order, the query set is held out. The scores after it:

    - accuracy: share of the held-out images that the head, trained by Adam in one pass, classifies (generalisation);
    - train_accuracy: the same of the images of the stream (memorisation);
    - accuracy_iid: of a head that saw the same images in random order;
    - accuracy_class_mean: of the nearest class mean of the same features, without any gradient;
    - accuracy_random_init, accuracy_random_init_class_mean: of an encoder of the same architecture that learned nothing.

    Each validation chooses the learning rate of each kind of head, for each length of the streams, by the held-out images of the
    validation classes; `test` takes that of the nearest length. Every image of a stream is normalised by itself.

    Args:
        deployment_lrs: learning rates of the head that validation chooses from; without one, the middle one is taken.
        num_outputs: outputs of the head, as the authors' program of OML has 1000: those beyond the classes of the stream are
            wrong answers, which the head unlearns. null for the classes alone.
    """

    task_types = ("classification",)
    learns_streams = True
    any_ways = True
    outer_batch_norm = False  # whether the outer loss normalises the queries of a task together
    sgd = ""  # what the scores of the head by gradient descent end with, where the algorithm has another way to classify

    @abstractmethod  # what is learned, a subclass has to say
    def __init__(
        self,
        deployment_lrs: tuple[float, ...] = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5),
        num_outputs: int | None = None,
        **kwargs,
    ):
        if not deployment_lrs or not all(isfinite(lr) and lr > 0 for lr in deployment_lrs):
            raise InputError(f"--model.deployment_lrs is {list(deployment_lrs)}; give at least one, each a number above 0")
        check_at_least(1, "model", or_null="for the classes of the stream", num_outputs=num_outputs)
        super().__init__(transductive=False, **kwargs)
        self.deployment_lrs, self.num_outputs = tuple(deployment_lrs), num_outputs
        self.chosen_lrs: dict[str, dict[int, float]] = {}
        self._untrained: Params | None = None
        # What is scored of each kind of head; the first decides about its rate.
        own = f"accuracy{self.sgd}"
        self.head_scores = {
            own: (own, f"train_{own}", f"loss{self.sgd}"),
            "accuracy_iid": ("accuracy_iid",),
            "accuracy_random_init": ("accuracy_random_init",),
        }

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        self._new_net = partial(backbone, self.input_shape, None)
        return self._new_net()

    def encode(self, params: Params, images: Tensor, first_episode: int = 0, together: bool = False) -> Tensor:
        """Features of images of shape (tasks, rows, *input) and a constant, of shape (tasks, rows, features + 1).

        Args:
            params: weights of the whole.
            images: the rows of each task.
            first_episode: number of the first task.
            together: whether the rows of a task are normalised together.
        """
        with self.rows(together, len(images), self.generators(len(images), first_episode)):
            features = functional_call(self.net, self.net_params(params), (images.flatten(0, 1),))
        return with_constant(widened(features.flatten(1))).unflatten(0, images.shape[:2])

    def rows(self, together: bool, num_tasks: int = 1, generators: Iterator[torch.Generator] | None = None) -> Rows:
        """What a norm is to take for a batch: the rows of each task, or each row by itself."""
        return Rows(num_tasks, one_by_one=not together, by_channel=self.norms_by_channel, generators=generators)

    def full_precision(self) -> torch.autocast:
        """Inside, matrix products are in the precision of their factors, whatever surrounds them."""
        return torch.autocast(self.device.type, enabled=False)

    # One head a stream

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        """Heads after the streams, of shape (tasks, classes, features + 1)."""
        with torch.no_grad():
            features, classes = self.encode(params, support_x, first_episode), num_classes(support_y)
        lrs = features.new_full((len(features), 1), self.deployment_lr(f"accuracy{self.sgd}", classes))
        with self.full_precision():
            fresh = self.fresh_heads(features, self.outputs_for(classes), first_episode)
            return deployed_heads(features, support_y, fresh, lrs)[:, 0, :classes]

    def predict_tasks(self, params: Params, adapted: Tensor, query_x: Tensor, first_episode: int = 0) -> Tensor:
        features = self.encode(params, query_x, first_episode, together=self.training and self.outer_batch_norm)
        with self.full_precision():
            return features @ adapted.mT

    def fresh_heads(self, features: Tensor, rows: int, first_episode: int) -> Tensor:
        """New rows of a head for each task, of shape (tasks, rows, features + 1); the bias is 0."""
        size = features.shape[-1] - 1
        drawn = [fresh_rows(rows, size, generator) for generator in self.generators(len(features), first_episode)]
        return F.pad(torch.stack(drawn), (0, 1)).to(features)

    def outputs_for(self, classes: int) -> int:
        """Rows of the head of a stream of so many classes."""
        return max(classes, self.num_outputs or 0)

    def deployment_lr(self, kind: str, classes: int) -> float:
        """The learning rate that validation chose for the nearest length."""
        chosen = self.chosen_lrs.get(kind)
        return chosen[min(chosen, key=lambda length: abs(log(length / classes)))] if chosen else self.default_lr

    @property
    def default_lr(self) -> float:
        """The learning rate where no validation took place: the middle one."""
        return self.deployment_lrs[(len(self.deployment_lrs) - 1) // 2]

    # All scores

    @torch.no_grad()
    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        """All scores; in val those of the heads at every learning rate, as `name@number`, for `reported` to choose from."""
        classes, choosing = num_classes(batch.support_y), split == "val"
        both = (batch.support_x, batch.query_x)
        support, queries = (self.encode(params, images, first_episode) for images in both)
        untrained = [self.encode(self._untrained_params(), images, first_episode) for images in both]
        generators = self.generators(len(support), first_episode)
        orders = torch.stack([torch.randperm(support.shape[1], generator=g, device=g.device) for g in generators])
        shuffled, labels = support.take_along_dim(orders[..., None], 1), batch.support_y.take_along_dim(orders, 1)
        lrs = [self.deployment_lrs if choosing else (self.deployment_lr(kind, classes),) for kind in self.head_scores]
        with self.full_precision():
            heads = deployed_heads(
                torch.cat([support, shuffled, untrained[0]]),
                torch.cat([batch.support_y, labels, batch.support_y]),
                self.fresh_heads(support, self.outputs_for(classes), first_episode).repeat(3, 1, 1),
                support.new_tensor(lrs).repeat_interleave(len(support), 0),
            ).unflatten(0, (3, -1))
            held_out = torch.stack([queries, queries, untrained[1]])[:, :, None] @ heads.mT
            learned = support[:, None] @ heads[0].mT  # each of shape (..., tasks, rates, rows, outputs)
            found = {kind: share(logits, batch.query_y) for kind, logits in zip(self.head_scores, held_out, strict=True)}
            own = f"accuracy{self.sgd}"
            found[f"train_{own}"] = share(learned, batch.support_y)
            found[f"loss{self.sgd}"] = vmap(vmap(self.outer_loss, (0, None)))(held_out[0], batch.query_y)
            by_means = {
                name: vmap(accuracy)(nearest_mean(class_means(stream, batch.support_y, classes), held), batch.query_y)
                for name, stream, held in (("accuracy", support, queries), ("accuracy_random_init", *untrained))
            }
        means = {f"{name}_class_mean": score for name, score in by_means.items()}
        if not choosing:
            return {0: {name: score[:, 0] for name, score in found.items()} | means}, None
        lengths = torch.full_like(means["accuracy_class_mean"], classes)
        at_rates = {f"{name}@{at}": score[:, at] for name, score in found.items() for at in range(score.shape[1])}
        return {0: {**at_rates, **means, "num_classes": lengths}}, None

    def reported(self, names: list[str], rows: Tensor) -> tuple[list[str], Tensor]:
        """Chooses the learning rates, where the scores are those of validation, and keeps their scores alone."""
        if "num_classes" not in names:
            return names, rows
        columns = dict(zip(names, rows[:, 0, 1:].unbind(1), strict=True))
        lengths = columns.pop("num_classes").long()
        kept = {name: column for name, column in columns.items() if "@" not in name}
        self.chosen_lrs = {}
        for kind, judged in self.head_scores.items():
            at_rates = {name: torch.stack([columns[f"{name}@{at}"] for at in range(len(self.deployment_lrs))]) for name in judged}
            best = {length: int(at_rates[kind][:, lengths == length].mean(1).argmax()) for length in lengths.unique().tolist()}
            self.chosen_lrs[kind] = {length: self.deployment_lrs[at] for length, at in best.items()}
            chosen = torch.tensor([best[length] for length in lengths.tolist()], device=rows.device)
            kept |= {name: scores.gather(0, chosen[None])[0] for name, scores in at_rates.items()}
        names = sorted(kept)
        return names, torch.stack([rows[:, 0, 0], *(kept[name] for name in names)], 1)[:, None]

    def _untrained_params(self) -> Params:
        """Weights of a new encoder, of which the run's seed alone decides."""
        if self._untrained is None:
            with torch.random.fork_rng(devices=[]):
                trainer = attached_trainer(self)
                torch.default_generator.manual_seed(trainer.datamodule.seed if trainer else 0)
                weights = dict(self._new_net().named_parameters())
            like = dict(self.net.named_parameters())
            self._untrained = {f"net.{name}": weight.detach().to(like[name]) for name, weight in weights.items()}
        return self._untrained

    # What is kept and told

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["chosen_lrs"] = self.chosen_lrs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.chosen_lrs = checkpoint["chosen_lrs"]

    def describe_algorithm(self) -> dict[str, Any]:
        chosen = self.chosen_lrs or f"{self.default_lr}, the middle one: no validation took place"
        return {
            **super().describe_algorithm(),
            "deployment": "Adam, one image at a time, one pass",
            "deployment_lrs": chosen,
            "deployment_outputs": self.num_outputs or "the classes of the stream",
        }


def num_classes(labels: Tensor) -> int:
    """Classes of streams whose labels are 0, 1, ..."""
    return int(labels.max()) + 1


def share(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the rows that are classified, of shape (tasks, rates)."""
    return vmap(vmap(accuracy, (0, None)))(logits, labels)
