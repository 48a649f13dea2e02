"""A memory of sums: integers, so that neither order nor grouping can change them."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.kept import Group, Kept, Name

BLOCK = 16  # rows that are encoded together, always so many: another number is another rounding
GRID = 2.0**24  # steps of the grid in 1
LARGEST = 2.0**62  # of a sum on the grid, which int64 holds


class KeepsSums:
    """Mixin of the algorithms for which the sums over the examples of each class, and their numbers, are all of a support set.

    The rows of `addends` must depend on nothing but the example: no statistics of a batch.
    """

    @abstractmethod
    def addends(self, params: Params, x: Tensor, y: Tensor | None) -> Tensor:
        """What each example adds to the sum of its class, or task, of shape (rows, size).

        Args:
            params: all meta-parameters.
            x: inputs as `adapt` takes them, of shape (rows, *input).
            y: targets of a regression, of shape (rows, targets); null in classification.
        """

    @abstractmethod
    def from_sums(self, params: Params, sums: Tensor, counts: Tensor) -> Any:
        """What `adapt` returns of a support set with these sums, in any precision.

        Args:
            params: all meta-parameters.
            sums: of the classes, or of the one task, in float64, of shape (classes, size).
            counts: examples of each, in float64, of shape (classes, 1).
        """

    @property
    def sums_are_enough(self) -> bool:
        """Whether that holds with the options at hand."""
        return not self.transductive


def in_blocks(function: Callable[..., Tensor], *rows: Tensor | None) -> Tensor:
    """A function of rows, computed in blocks of one size: what it says of a row then depends on that row alone.

    Args:
        function: gives a row for each row.
        rows: its arguments, each of shape (rows, ...) or null.
    """
    count = next(len(part) for part in rows if part is not None)
    found = []
    for start in range(0, count, BLOCK):
        block = [None if part is None else _padded(part[start : start + BLOCK]) for part in rows]
        found.append(function(*block)[: count - start])
    return torch.cat(found)


def _padded(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(BLOCK - len(rows), *rows.shape[1:])])


class KeptSums(Kept):
    """Of each class the sum of its examples' addends, each rounded to a grid of 2^-24, and their number.

    Args:
        addends: of examples, inputs and targets in the units of the files, in float64, of shape (rows, size).
    """

    kind = "sums"
    words = "sums"

    def __init__(self, addends: Callable[[Tensor, Tensor | None], Tensor]):
        self._addends = addends
        self.sums: dict[Name, Tensor] = {}
        self._counts: dict[Name, int] = {}

    @property
    def counts(self) -> dict[Name, int]:
        return dict(self._counts)

    def learn(self, groups: dict[Name, Group]) -> dict[Name, int]:
        self._add({name: (self._sum(group), len(group.digests)) for name, group in groups.items()})
        return {}

    def forget(self, name: Name) -> None:
        del self.sums[name], self._counts[name]

    def forget_examples(self, groups: dict[Name, Group]) -> None:
        taken = {name: (-self._sum(group), -len(group.digests)) for name, group in groups.items()}
        self._add(taken)
        for name in taken:
            if not self._counts[name]:
                self.forget(name)

    def merge(self, other: "KeptSums") -> dict[Name, int]:
        self._add({name: (other.sums[name], count) for name, count in other.counts.items()})
        return {}

    def _sum(self, group: Group) -> Tensor:
        addends = self._addends(group.x, group.y)
        if not addends.isfinite().all():
            raise InputError("the features of what is to be learned are not finite; give another checkpoint")
        return sum_on_grid(addends)

    def _add(self, parts: dict[Name, tuple[Tensor, int]]) -> None:
        sums = {name: part + self.sums.get(name, 0) for name, (part, _) in parts.items()}
        if any(total.double().abs().max() > LARGEST / 2 for total in sums.values()):
            raise InputError("the sum of the features of a class is too large to be exact; forget some of its examples")
        self.sums |= sums
        for name, (_, count) in parts.items():
            self._counts[name] = self._counts.get(name, 0) + count

    def totals(self, names: list[Name]) -> tuple[Tensor, Tensor]:
        """Sums, of shape (names, size), and counts, of shape (names, 1), in float64."""
        sums = torch.stack([self.sums[name] for name in names]).double() / GRID
        return sums, torch.tensor([[self._counts[name]] for name in names], dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        names = sorted(self._counts, key=str)
        sums = torch.stack([self.sums[name] for name in names]) if names else torch.zeros(0, 0, dtype=torch.int64)
        return {"names": names, "counts": [self._counts[name] for name in names], "sums": sums}

    def load(self, state: dict[str, Any]) -> None:
        self.sums = dict(zip(state["names"], state["sums"].unbind(0), strict=True))
        self._counts = dict(zip(state["names"], state["counts"], strict=True))


def sum_on_grid(rows: Tensor) -> Tensor:
    """The sum of rows, each rounded to the grid, as integers.

    Raises:
        InputError: a number is too large for the grid.
    """
    scaled = (rows.double() * GRID).round()
    if scaled.abs().max() * len(rows) > LARGEST / 2:
        raise InputError("the features of what is to be learned are too large to be summed exactly; give another checkpoint")
    return scaled.long().sum(0).cpu()
