"""What the rows of a network's input are, for the layers that do more than take one row after the other: norms and DropBlock."""

from collections.abc import Iterable
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import cached_property

import torch


@dataclass
class Rows(ContextDecorator):
    """Entered as a context, it holds for all norms and DropBlocks inside; without one, the rows are those of one task.

    Attributes:
        num_tasks: the rows are those of so many tasks, one after the other; a norm normalises each task alone.
        reference: a norm takes mean and variance from the first so many rows and applies them to all, null for all rows. With
            the support set in front of the queries a prediction is independent of the other queries (non-transductive; MetaBN
            of Bronskill et al. 2020, "TaskNorm").
        one_by_one: a norm normalises each row by the row's own mean and variance, of all channels and positions. For streams,
            where an image is learned alone: layer normalisation, which has statistics even of a map of one position.
        step: number of the outer step, from 0, with which the rate of a DropBlock may rise.
        by_channel: with `one_by_one`, each channel of a row is normalised by its own mean and variance over the positions, as
            batch normalisation does with a batch of one image. A map of one position is normalised over its channels.
        generators: of random numbers, one for each task; made only where a DropBlock draws from them.
    """

    num_tasks: int = 1
    reference: int | None = None
    one_by_one: bool = False
    step: int = 0
    by_channel: bool = False
    generators: Iterable[torch.Generator] | None = None
    _tokens: list[Token] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def noise(self) -> list[torch.Generator]:
        """The generators; in training a DropBlock needs them."""
        if self.generators is None:
            raise LookupError("a DropBlock in training draws its noise inside Rows(generators=...)")
        return list(self.generators)

    @staticmethod
    def current() -> "Rows":
        """Those that hold here."""
        return _current.get()

    def __enter__(self) -> "Rows":
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, *error: object) -> None:
        _current.reset(self._tokens.pop())


ONE_TASK = Rows()
_current: ContextVar[Rows] = ContextVar("rows", default=ONE_TASK)
