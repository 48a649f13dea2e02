"""Whether what arrives looks like what was learned, class by class."""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import NamedTuple

import torch
from torch import Tensor

from app.deploy.adapted import Knowing
from app.deploy.methods import features
from app.deploy.predictor import Predictor
from app.errors import InputError
from app.learners.kept import Group, Name
from app.learners.kept_sums import in_blocks
from app.scores.two_samples import two_sample_test

SKETCH = 16  # numbers of an example
ALARM_RATE = 0.05
MOST = 256  # examples of a class that are compared, of the old and of the new ones


class Example(NamedTuple):
    """What is told of an example that was learned.

    Attributes:
        digest: what tells it from all others.
        sketch: its features, projected at random to so many numbers, float32, as bytes.
    """

    digest: bytes
    sketch: bytes


class Drift(NamedTuple):
    """What a test says of examples of classes that were known before.

    Attributes:
        alarm_rate: the chance that anything is said to differ where nothing does.
        together: p-value of all classes at once.
        of_name: p-value of each class, adjusted for all of them.
    """

    alarm_rate: float
    together: float
    of_name: dict[Name, float]

    @property
    def names(self) -> list[Name]:
        """The classes that do not look like what was learned of them."""
        return [name for name, value in self.of_name.items() if value <= self.alarm_rate / 2]

    @property
    def is_seen(self) -> bool:
        """Whether anything does not look like what was learned; half of the rate is for each kind of alarm."""
        return bool(self.names) or self.together <= self.alarm_rate / 2


def drift_of(old: dict[Name, list[Example]], new: dict[Name, list[Example]], alarm_rate: float) -> Drift | None:
    """Compares what arrives with what was learned of the same names; null where no name has both.

    Args:
        old: of each name, what was learned.
        new: of each name, what arrives.
        alarm_rate: the chance of a false alarm, of all names together, between 0 and 1.
    """
    check_rate(alarm_rate)
    names = sorted((name for name in new if old.get(name)), key=str)
    if not names:
        return None
    pairs = [(_some(new[name]), _some(old[name])) for name in names]
    text = sha256(b"".join(example.digest for pair in pairs for part in pair for example in part)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(text[:6], "big"))
    found = two_sample_test([tuple(map(_rows, pair)) for pair in pairs], generator)
    return Drift(alarm_rate, found.together, dict(zip(names, found.of_class, strict=True)))


def check_rate(alarm_rate: float) -> None:
    """Raises an InputError where it is no probability."""
    if isinstance(alarm_rate, str) or not 0 < alarm_rate < 1:
        raise InputError(f"--alarm_rate is {alarm_rate}; give a probability between 0 and 1, such as 0.05")


def sketches(predictor: Predictor) -> Callable[[Group], list[Example]]:
    """What is told of the examples of a group: their features by the network before any adaptation, projected at random."""
    seen = feature_rows(predictor)

    def examples(group: Group) -> list[Example]:
        rows = seen(group.x, group.y).cpu().double()
        rows = (rows @ _projection(rows.shape[1])).float().numpy()
        return [Example(digest, row.tobytes()) for digest, row in zip(group.digests, rows, strict=True)]

    return examples


def feature_rows(predictor: Predictor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What the network makes of examples, each by itself; of inputs and targets in the units of the files."""
    blank = Knowing(predictor.algorithm, predictor.reading, [])
    device = predictor.algorithm.device

    def rows(x: Tensor, y: Tensor | None) -> Tensor:
        inputs = blank.scaled(x.to(device))
        targets = None if y is None else blank.scaled_targets(y.to(device))
        with torch.no_grad():
            return in_blocks(lambda *block: features(blank.algorithm, blank.params, *block), inputs, targets)

    return rows


@cache
def _projection(size: int) -> Tensor:
    """Onto the numbers of a sketch, the same in every learner; distances stay as they are on average."""
    drawn = torch.randn(size, SKETCH, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return drawn / SKETCH**0.5


def _some(examples: list[Example]) -> list[Example]:
    """At most so many, which their digests draw, in an order that does not depend on when they came."""
    return sorted(examples, key=lambda one: one.digest)[:MOST]


def _rows(examples: list[Example]) -> Tensor:
    text = bytearray(b"".join(one.sketch for one in examples))
    return torch.frombuffer(text, dtype=torch.float32).view(-1, SKETCH)
