"""The head of an algorithm that was meta-trained for streams, as a memory: it learns on, image after image."""

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm
from app.continual.meta_trained.deployment import RunningHeads
from app.errors import InputError
from app.learners.kept import Group, Kept, Name

ROWS = 32  # that a head grows by


class KeptHead(Kept):
    """The rows of a head and Adam's moments: new examples are further steps, new classes new rows.

    Rows are there before their classes, so many at a time: wrong answers to every image, which they unlearn. Else a new class
    would answer to images of those before it. The first row stays of no class: later rows begin with what it has unlearned.

    Args:
        encoded: features of inputs with the constant, of shape (rows, features + 1).
        algorithm: says what new rows are, and the learning rate for so many classes.
    """

    kind = "head"
    words = "a head that learns on"
    can_forget = False

    def __init__(self, encoded: Callable[[Tensor], Tensor], algorithm: DeployedAlgorithm):
        self._encoded, self._algorithm = encoded, algorithm
        self._head: RunningHeads | None = None
        self._start: Tensor | None = None  # of the first row
        self._counts: dict[Name, int] = {}  # in the order of their rows

    @property
    def counts(self) -> dict[Name, int]:
        return dict(self._counts)

    def learn(self, groups: dict[Name, Group]) -> dict[Name, int]:
        names = [*self._counts, *(name for name in groups if name not in self._counts)]
        features = torch.cat([self._encoded(group.x) for group in groups.values()])[None]
        labels = torch.tensor([[1 + names.index(name) for name, group in groups.items() for _ in group.digests]])
        lr = self._algorithm.deployment_lr(f"accuracy{self._algorithm.sgd}", len(names))
        with self._algorithm.full_precision():
            head = self._grown(features, len(names))
            head = head.after(features, labels.to(features.device), features.new_tensor([[lr]]))
        if not head.weights.isfinite().all():
            raise InputError("the head is not finite any more, and nothing was learned; give another checkpoint")
        self._head = head
        added = {name: len(group.digests) for name, group in groups.items()}
        self._counts = {name: self._counts.get(name, 0) + added.get(name, 0) for name in names}
        return {}

    def _grown(self, features: Tensor, classes: int) -> RunningHeads:
        """The head with rows for so many classes; the new ones are as before the first image."""
        outputs = 1 + self._algorithm.outputs_for(ROWS * ceil(classes / ROWS))
        if self._head is None:
            drawn = self._algorithm.fresh_heads(features, outputs, 0)
            self._start = drawn[0, 0]
            return RunningHeads.fresh(drawn)
        weights, *moments = (part.to(features) for part in self._head[:3])
        if (more := outputs - weights.shape[2]) <= 0:
            return RunningHeads(weights, *moments, self._head.steps)
        drawn = self._algorithm.fresh_heads(features, more, outputs)[:, None]
        rows = [torch.cat([part, part[:, :, :1].expand(-1, -1, more, -1)], 2) for part in (weights, *moments)]
        rows[0][:, :, -more:] += drawn - self._start.to(features)
        return RunningHeads(*rows, self._head.steps)

    def rows(self, names: list[Name]) -> Tensor:
        """The rows of these classes, of shape (names, features + 1)."""
        known = list(self._counts)
        return self._head.weights[0, 0, [1 + known.index(name) for name in names]]

    def forget(self, name: Name) -> None:
        raise NotImplementedError

    def forget_examples(self, groups: dict[Name, Group]) -> None:
        raise NotImplementedError

    def merge(self, other: Kept) -> dict[Name, int]:
        raise InputError("--merge: a head that learned image after image takes in no other one; learn the other's examples")

    def state(self) -> dict[str, Any]:
        head = None if self._head is None else list(self._head)
        return {"counts": list(self._counts.items()), "head": head, "start": self._start}

    def load(self, state: dict[str, Any]) -> None:
        self._counts, self._start = dict(state["counts"]), state["start"]
        self._head = None if state["head"] is None else RunningHeads(*state["head"])
