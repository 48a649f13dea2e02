"""Learning without forgetting."""

from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from app.continual.base.differentiation import unrecorded
from app.continual.base.meta_parameters import ABOVE_ZERO
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_above_zero, check_not_negative
from datamodules.base.stream import Experience, Samples, StreamBatch, StreamDataModule

FAR = -1e9  # a logit that does not compete; minus infinity in all of them would have no softmax


class LwF(ContinualMethod):
    """Learning without forgetting (Li and Hoiem 2016): on new images, old outputs stay what the last experience's network says.

    The loss is CE + strength * temperature^2 * the cross-entropy between the softened old and new answers. Task ids give each
    past experience a softmax of its own; else there is one, over the classes of the past experiences. In regression the distance
    to the old answers is the squared error, without a temperature.

    Args:
        strength: of the distillation.
        temperature: that softens both answers.
        kwargs: of ContinualMethod.
    """

    needs = frozenset({"boundaries"})
    goes_abreast = True
    meta_parameters: ClassVar = {"strength": ABOVE_ZERO, "temperature": ABOVE_ZERO}

    def __init__(self, net: nn.Module, stream: StreamDataModule, strength: float = 1.0, temperature: float = 2.0, **kwargs):
        super().__init__(net, stream, **kwargs)
        check_not_negative("model.method", strength=strength)
        check_above_zero("model.method", temperature=temperature)
        self.strength, self.temperature = strength, temperature
        self.teacher = deepcopy(net).requires_grad_(False)
        groups = len(stream.experiences) if self.masked else 1
        self.register_buffer("groups", torch.zeros(groups, stream.output_size, dtype=torch.bool))

    def train(self, mode: bool = True) -> "LwF":
        super().train(mode)
        self.teacher.eval()
        return self

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        for _ in range(self.glances):
            loss = self.mean_loss(batch.x, batch.y, batch.task) + self.strength * self.distillation(batch.x)
            self.step(loss)
        return loss

    def distillation(self, x: Tensor) -> Tensor:
        """This process's part of the mean over a batch of the distance to the teacher; 0 during the first experience."""
        mine = self.share(len(x))
        if not self.objective.has_classes:
            return self.objective.loss(self.net(x[mine]), self.teacher(x[mine]), "sum") / len(x) * self.groups.any()
        outputs, targets = (
            net(x[mine])[:, None].div(self.temperature).masked_fill(~self.groups, FAR) for net in (self.net, self.teacher)
        )
        found = outputs.log_softmax(-1).masked_fill(~self.groups, 0)
        return -(self.temperature**2) * (targets.softmax(-1) * found).sum() / len(x)

    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        self.groups[number if self.masked else 0] |= self.masks[number]
        with unrecorded():  # by hand: a state dict has no derivatives
            for kind in (nn.Module.parameters, nn.Module.buffers):
                for own, learned in zip(kind(self.teacher), kind(self.net), strict=True):
                    own.copy_(learned)

    @property
    def memory_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.teacher.state_dict().values())
