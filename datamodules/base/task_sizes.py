"""How many classes and images the tasks of each split have."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from app.errors import InputError, check_at_least
from datamodules.files.image_split import ImageSplit

Range = int | tuple[int, int]


class TaskSize(NamedTuple):
    """Ways, and support and query images of each class."""

    ways: int
    shots: int
    queries: int


class TaskSizes:
    """Sizes of the tasks: fixed in evaluation; in training fixed too, or drawn for each outer step.

    Args:
        evaluated: of test, and of validation but for `val_shots`.
        val_shots: support images of each class in validation, null for those of test.
        train_ways: classes in a training task, null for those of evaluation; or the ends of a range.
        train_shots: support images of each class in training, null for those of test; or the ends of a range.
        train_queries: query images of each class in training, null for those of evaluation.
        train_class_images: support and query images of each class in training together, in place of `train_queries`.
    """

    def __init__(
        self,
        evaluated: TaskSize,
        val_shots: int | None,
        train_ways: Range | None,
        train_shots: Range | None,
        train_queries: int | None,
        train_class_images: int | None,
    ):
        ways, shots, queries = evaluated
        check_at_least(2, "data", ways=ways)
        check_at_least(1, "data", shots=shots, queries=queries, train_queries=train_queries, val_shots=val_shots)
        self.evaluated, self.val_shots = evaluated, shots if val_shots is None else val_shots
        self.train_ways = _range("train_ways", ways if train_ways is None else train_ways, least=2)
        self.train_shots = _range("train_shots", shots if train_shots is None else train_shots, least=1)
        self.train_queries, self.train_class_images = train_queries or queries, train_class_images
        if train_class_images is not None and train_class_images <= self.train_shots[1]:
            raise InputError(
                f"--data.train_class_images {train_class_images} leaves no query beside --data.train_shots "
                f"{self.train_shots[1]}; give at least {self.train_shots[1] + 1}"
            )
        given = {"ways": train_ways, "shots": train_shots, "queries": train_queries}
        self._train_options = {name: f"train_{name}" if value else name for name, value in given.items()}

    def of(self, split: str, generator: Callable[[], np.random.Generator]) -> TaskSize:
        """Of the tasks of one step of a split.

        Args:
            split: train, val or test.
            generator: makes the random numbers of the step, where they are needed.
        """
        if split != "train":
            return self.largest(split)
        if self.train_ways[0] == self.train_ways[1] and self.train_shots[0] == self.train_shots[1]:
            return self._in_training(self.train_ways[1], self.train_shots[1])
        drawn = generator()
        return self._in_training(*(int(drawn.integers(*ends, endpoint=True)) for ends in (self.train_ways, self.train_shots)))

    def _in_training(self, ways: int, shots: int) -> TaskSize:
        return TaskSize(ways, shots, self.train_class_images - shots if self.train_class_images else self.train_queries)

    def largest(self, split: str) -> TaskSize:
        """The most classes and images that a task of a split can have."""
        if split == "train":
            return self._in_training(self.train_ways[1], self.train_shots[1])
        return self.evaluated._replace(shots=self.val_shots) if split == "val" else self.evaluated

    def check(self, data: str, things: str, splits: dict[str, ImageSplit]) -> None:
        """Raises an InputError where a split has too few classes or images.

        Args:
            data: name of the data set.
            things: what its classes are made of, such as images.
            splits: those that are used.
        """
        for name, split in splits.items():
            ways, shots, queries = self.largest(name)
            options = {option: option for option in self._train_options} | (self._train_options if name == "train" else {})
            if len(split.class_names) < ways:
                fewest = min(len(one.class_names) for one in splits.values())
                raise InputError(
                    f"the {name} split of {data} has too few classes, {len(split.class_names)}, for "
                    f"--data.{options['ways']} {ways}; give at most {fewest}, which every split has"
                )
            smallest = int(split.counts.argmin())
            least, needed = split.counts[smallest], shots + queries
            if least < needed:
                raise InputError(
                    f"class {split.class_names[smallest]!r} in the {name} split of {data} has {least} {things}, fewer than "
                    f"--data.{options['shots']} {shots} + --data.{options['queries']} {queries} = {needed}; lower one of them"
                )


def _range(option: str, value: Range, least: int) -> tuple[int, int]:
    """The ends of an option's range, of one number twice this number."""
    first, last = (value, value) if isinstance(value, int) else value
    if not least <= first <= last:
        shown = value if isinstance(value, int) else f"[{first},{last}]"
        raise InputError(f"--data.{option} is {shown}; give at least {least}, or two such numbers, the smaller one first")
    return first, last
