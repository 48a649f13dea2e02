"""A memory of examples, to which the algorithm adapts anew."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from app.errors import InputError
from app.learners.kept import Group, Kept, Name

Rule = Literal["all", "first", "last", "random", "nearest"]


class KeptExamples(Kept):
    """Of each class, or task, at most `limit` examples.

    Args:
        limit: examples of each name; null for any number.
        rule: which stay where more arrive: all, none may be left out and more are refused; first, those that came first; random,
            those that the seed draws, whatever the order they come in; nearest, those nearest to the mean of the features of all
            that are at hand; last, those that came last, so that older ones fade.
        seed: of the rule `random`.
        features: of examples, inputs and targets, of shape (rows, features), for the rule `nearest`.
    """

    kind = "examples"

    def __init__(self, limit: int | None, rule: Rule, seed: int, features: Callable[..., Tensor]):
        if limit is not None and limit < 1:
            raise InputError(f"--memory is {limit}; give at least 1, or leave it out for any number")
        if rule not in get_args(Rule):
            raise InputError(f"--keep is {rule}; give all, first, random or nearest")
        if limit is None and rule != "all":
            raise InputError(f"--keep {rule} chooses among more examples than --memory allows; give --memory a number")
        self.limit, self.rule, self.seed, self._features = limit, rule, seed, features
        self.groups: dict[Name, Group] = {}

    @property
    def window(self) -> int | None:
        return self.limit if self.rule == "last" else None

    @property
    def words(self) -> str:
        if self.limit is None:
            return "all examples"
        return f"the last {self.limit} examples of each" if self.window else f"{self.limit} examples of each at most"

    @property
    def counts(self) -> dict[Name, int]:
        return {name: len(group.digests) for name, group in self.groups.items()}

    def learn(self, groups: dict[Name, Group]) -> dict[Name, int]:
        found, dropped = {}, {}
        for name, group in groups.items():
            whole = _joined(self.groups[name], group) if name in self.groups else group
            found[name] = self._chosen(name, whole)
            if gone := len(whole.digests) - len(found[name].digests):
                dropped[name] = gone
        self.groups |= found
        return dropped

    def _chosen(self, name: Name, group: Group) -> Group:
        count = len(group.digests)
        if self.limit is None or count <= self.limit:
            return group
        if self.rule == "all":
            raise InputError(
                f"{name!r} would have {count} examples, more than the {self.limit} that --memory allows; begin the learner with "
                "--keep first, random or nearest, or with a larger --memory"
            )
        if self.rule in ("first", "last"):
            rows = list(range(count))
            rows = rows[: self.limit] if self.rule == "first" else rows[-self.limit :]
        else:
            order = sorted(range(count), key=self._rank(group).__getitem__)
            rows = sorted(order[: self.limit])
        return _rows(group, rows)

    def _rank(self, group: Group) -> list[Any]:
        if self.rule == "random":  # which stay does not depend on the order: the least of all draws
            return [sha256(f"{self.seed}:".encode() + digest).digest() for digest in group.digests]
        features = self._features(group.x, group.y).double()
        distances = (features - features.mean(0)).square().sum(1).tolist()
        return list(zip(distances, group.digests, strict=True))

    def forget(self, name: Name) -> None:
        del self.groups[name]

    def forget_examples(self, groups: dict[Name, Group]) -> None:
        for name, group in groups.items():
            if name not in self.groups:
                continue
            gone = set(group.digests)
            rows = [row for row, digest in enumerate(self.groups[name].digests) if digest not in gone]
            if rows:
                self.groups[name] = _rows(self.groups[name], rows)
            else:
                self.forget(name)

    def merge(self, other: "KeptExamples") -> dict[Name, int]:
        return self.learn(other.groups)

    def examples(self, names: list[Name]) -> tuple[Tensor, Tensor]:
        """All examples of these classes and their numbers, or of one task and their targets.

        Class after class, within each in the order of the digests: so it does not matter when they were learned.
        """
        x, y = [], []
        for number, name in enumerate(names):
            group = self.groups[name]
            rows = sorted(range(len(group.digests)), key=group.digests.__getitem__)
            x.append(group.x[rows])
            y.append(torch.full((len(rows),), number) if group.y is None else group.y[rows])
        return torch.cat(x), torch.cat(y)

    def state(self) -> dict[str, Any]:
        names = sorted(self.groups, key=str)
        return {
            "names": names,
            "limit": self.limit,
            "rule": self.rule,
            "seed": self.seed,
            "x": [_packed(self.groups[name].x) for name in names],
            "y": [self.groups[name].y for name in names],
            "digests": [b"".join(self.groups[name].digests).hex() for name in names],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.limit, self.rule, self.seed = state["limit"], state["rule"], state["seed"]
        texts = (bytes.fromhex(text) for text in state["digests"])
        digests = [[text[at : at + 16] for at in range(0, len(text), 16)] for text in texts]
        parts = zip(state["names"], state["x"], state["y"], digests, strict=True)
        self.groups = {name: Group(_unpacked(x), y, own) for name, x, y, own in parts}


def _joined(one: Group, other: Group) -> Group:
    y = None if one.y is None else torch.cat([one.y, other.y])
    return Group(torch.cat([one.x, other.x]), y, one.digests + other.digests)


def _rows(group: Group, rows: list[int]) -> Group:
    y = None if group.y is None else group.y[rows]
    return Group(group.x[rows], y, [group.digests[row] for row in rows])


def _packed(x: Tensor) -> Tensor:
    """Pixels that came from bytes as bytes again."""
    pixels = (x * 255).round()
    is_of_bytes = x.ndim == 4 and bool((pixels.byte().to(x.dtype) / 255 == x).all())
    return pixels.byte() if is_of_bytes else x


def _unpacked(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype()) / 255 if x.dtype == torch.uint8 else x
