"""RFS."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from app.algorithms.metric_based.baseline import Baseline
from app.algorithms.metric_based.teacher import Teacher
from app.episode import Episode
from app.errors import check_above_zero, check_not_negative
from app.inner_loop.params import Params
from app.learners.learner import Origin
from app.learners.meta_algorithm import Metrics


class RFS(Baseline):
    """Learns all training classes at once, then fits logistic regression to features of length 1 (Tian et al. 2020).

    A further generation learns from the classes and from what the generation before says of the pictures: --model.teacher its
    checkpoint, and a network that begins anew.

    Args:
        teacher: checkpoint of the generation before, whose network is like this one's; null for the first generation.
        class_weight: of the cross-entropy, where there is a teacher.
        distillation_weight: of the divergence from the teacher.
        distillation_temperature: by which the logits of both are divided for it.
        kwargs: of Baseline, whose head is the optimum of logistic regression.
    """

    def __init__(
        self,
        teacher: Path | None = None,
        class_weight: float = 0.5,
        distillation_weight: float = 0.5,
        distillation_temperature: float = 4.0,
        **kwargs,
    ):
        super().__init__(eval_head="logistic", inner_lr=0.01, eval_inner_steps=1, **kwargs)  # without steps
        check_not_negative("model", class_weight=class_weight, distillation_weight=distillation_weight)
        check_above_zero("model", distillation_temperature=distillation_temperature)
        self.class_weight, self.distillation_weight = class_weight, distillation_weight
        self.distillation_temperature, self.teacher_path = distillation_temperature, teacher
        self.teacher = Teacher(self.net, self.head) if teacher else None

    def origins(self) -> list[Origin]:
        taught = [Origin("teacher", self.teacher_path, self.teacher, prefix="")] if self.teacher else []
        return [*super().origins(), *taught]

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        if not self.training or self.teacher is None:
            return super().losses(params, batch, first_episode)
        images, outputs, labels = self.class_outputs(params, batch, first_episode)
        losses, metrics = self.loss_and_score(outputs, labels)
        with torch.no_grad():
            taught = self.teacher(images.flatten(0, 1)).view_as(outputs)
        divergence = self.divergence(outputs, taught)
        return self.class_weight * losses + self.distillation_weight * divergence, metrics | {"distillation_loss": divergence}

    def divergence(self, outputs: Tensor, taught: Tensor) -> Tensor:
        """That of Kullback and Leibler from the teacher's classes to the own ones, of shape (tasks,) (Hinton et al. 2015)."""
        own, other = (part.div(self.distillation_temperature).log_softmax(-1) for part in (outputs, taught))
        of_rows = F.kl_div(own, other, reduction="none", log_target=True).sum(-1)
        return of_rows.mean(-1) * self.distillation_temperature**2
