"""What a learner that lives keeps of what it learned: the contract, and what all kinds of memory share.

- *Sums* (`KeptSums`, for an algorithm that `KeepsSums`): of each class the sum of what its examples add, and their number. The
  memory of a class does not grow, and three promises hold to the bit: the order of learning does not matter, merging two
  learners is learning both, and what was forgotten was never seen.
- *Examples* (`KeptExamples`, for every other algorithm): examples of each class, at most so many, chosen by a named rule; the
  algorithm adapts to them anew.
- *Streams* and *heads* (`KeptStream`, `KeptHead` in `app/deploy/`): what a method for streams keeps, and the head of an algorithm
  that was meta-trained for them. What arrives is the next experience; nothing can be taken back.

A regression has tasks where a classification has classes: more rows for one that is known, others beside it.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from app.torch_internals import tree_flatten

Name = Any  # of a class or a task: what a person calls it, as a rule a text


class Group(NamedTuple):
    """Examples of one class, or of one task of a regression.

    Attributes:
        x: inputs, pixels from 0 to 1 or columns in their own units, of shape (rows, *input).
        y: targets in their own units, of shape (rows, targets); null in classification.
        digests: what tells each example from all others, 16 bytes.
    """

    x: Tensor
    y: Tensor | None
    digests: list[bytes]


class Kept(ABC):
    """Base of the memories.

    Attributes:
        kind: sums, examples, stream or head, as the file says.
        words: what it keeps, for a person.
        replaces: what of a checkpoint it holds itself.
        can_forget: whether what was learned can be taken back.
        window: of each name the last so many examples count, older ones fade; null where all do.
    """

    kind: str
    words: str
    replaces: tuple[str, ...] = ()
    can_forget = True
    window: int | None = None

    @property
    @abstractmethod
    def counts(self) -> dict[Name, int]:
        """Examples of each name that it holds, by their sum or themselves; none is 0."""

    @abstractmethod
    def learn(self, groups: dict[Name, Group]) -> dict[Name, int]:
        """Adds examples; returns how many of each name are not held any more, where that is any.

        Raises:
            InputError: they do not suit; nothing is changed.
        """

    @abstractmethod
    def forget(self, name: Name) -> None:
        """Takes back all examples of a name that it holds."""

    @abstractmethod
    def forget_examples(self, groups: dict[Name, Group]) -> None:
        """Takes back examples that were learned."""

    @abstractmethod
    def merge(self, other: "Kept") -> dict[Name, int]:
        """Adds what another memory of the same kind holds; returns what is not held any more, as `learn` does."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it keeps."""
        return sum(part.nbytes for part in tree_flatten(self.state())[0] if isinstance(part, Tensor))

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
