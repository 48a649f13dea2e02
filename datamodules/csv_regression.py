"""Few-shot regression of a person's own table."""

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from app.episode import Episode
from app.errors import InputError
from datamodules.base import mixed_effects
from datamodules.base.episodic import choose
from datamodules.base.regression import RegressionEpisodes, check_sizes
from datamodules.base.split import check_fractions, deal
from datamodules.files.csv_table import columns_given, read_table

VALIDATION = 64  # episodes that choose the degree of the mixed-effects model


class CsvRegression(RegressionEpisodes):
    """Every value of one column of a CSV file is a task: to predict the columns `y` of its rows from the columns `x`.

    Tasks are split into train, val and test, never the rows of a task. x and y are standardised by mean and standard deviation
    over all rows of the training tasks, and every score is in these units: an mse times the square of the standard deviation,
    which `results.json` holds, is in squared units of y.

    An episode is a random choice of a task's rows. In training its task is a random one; in evaluation the tasks take turns, and
    the confidence intervals are over tasks, however many episodes each has. Context and target sizes are equal within an outer
    step, and in evaluation within every `meta_batch_size` consecutive episodes.

    The references are the mean of the context's y, the least-squares linear function of x on the context, and a mixed-effects
    model: a polynomial that all training tasks share, of the degree that validation tasks choose, and an intercept and slopes of
    each task's own.

    Args:
        path: a CSV file in UTF-8, its first line the names of the columns.
        task: the column that names the task of a row.
        x: the column of the input, or several.
        y: the column of the target, or several.
        num_context: smallest and largest context size.
        num_target: smallest and largest target size; null for all rows that the smallest task of the split has left.
        split_fractions: shares of the tasks for train, val and test; they sum to 1.
        split_seed: of the order in which the sorted tasks are dealt to the splits.
        drop_incomplete: leaves out the rows that lack a number, and says how many.
        meta_batch_size: tasks in an outer step, over all devices.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
    """

    def __init__(
        self,
        path: Path,
        task: str,
        x: list[str] | str,
        y: list[str] | str,
        num_context: tuple[int, int] = (3, 8),
        num_target: tuple[int, int] | None = None,
        split_fractions: tuple[float, float, float] = (0.64, 0.16, 0.2),
        split_seed: int = 0,
        drop_incomplete: bool = False,
        meta_batch_size: int = 16,
        val_episodes: int = 200,
        test_episodes: int = 600,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        self.path = Path(path).expanduser()
        self.task, self.x, self.y = task, columns_given(self.path, x), columns_given(self.path, y)
        for option, columns in (("x", self.x), ("y", self.y)):
            if not columns:
                raise InputError(f"--data.{option} names no column; give at least one")
        self.columns = [*self.x, *self.y]
        if twice := [column for column in self.columns if [task, *self.columns].count(column) > 1]:
            raise InputError(f"--data.task, --data.x and --data.y name the column {twice[0]} twice; give each column once")
        check_sizes("num_context", num_context)
        if num_target:
            check_sizes("num_target", num_target)
        check_fractions(split_fractions)
        self.num_context, self.num_target = num_context, num_target
        self.split_fractions, self.split_seed, self.drop_incomplete = split_fractions, split_seed, drop_incomplete
        self.axis_names = tuple(f"{', '.join(columns)} (standardised)" for columns in (self.x, self.y))
        self._tasks: dict[str, list[tuple[str, np.ndarray]]] = {}

    @property
    def input_shape(self) -> tuple[int]:
        return (len(self.x),)

    @property
    def output_size(self) -> int:
        return len(self.y)

    @property
    def manifest_hash(self) -> str:
        return self._manifest_hash

    def setup(self, stage: str | None = None) -> None:
        if self._tasks:
            return
        tasks, digest = read_table(self.path, self.task, self.columns, self.drop_incomplete)
        if len(tasks) == 1:
            raise InputError(
                f"--data.task {self.task} is {next(iter(tasks))!r} in all rows of {self.path}, which makes one task; choose a "
                "column with more values, or add rows"
            )
        source = f"--data.path {self.path}, by --data.task {self.task},"
        dealt = deal(list(tasks), self.split_fractions, self.split_seed, "tasks", source)
        rows = np.concatenate([tasks[name] for name in dealt["train"]])
        self.mean, self.std = rows.mean(0), rows.std(0)
        for column, least, most in zip(self.columns, rows.min(0), rows.max(0), strict=True):
            if least == most:
                raise InputError(f"--data.path {self.path} has {most:g} as {column} of all training tasks; choose another column")
        for split, names in dealt.items():
            self._tasks[split] = [(name, (tasks[name] - self.mean) / self.std) for name in names]
        self._smallest = {split: min(len(rows) for _, rows in tasks) for split, tasks in self._tasks.items()}
        self._manifest_hash = sha256(f"{digest} {dealt}".encode()).hexdigest()

    def check(self) -> None:
        counts = sorted((len(rows), name) for tasks in self._tasks.values() for name, rows in tasks)
        targets = self.num_target[0] if self.num_target else 1
        needed = self.num_context[1] + targets
        given = f"--data.num_context up to {self.num_context[1]} and at least {targets} as target are {needed} rows of a task"
        few = [(count, name) for count, name in counts if count < needed]
        if counts[-1][0] <= targets:
            raise InputError(
                f"the largest of the {len(counts)} tasks of {self.path}, by --data.task {self.task}, is {counts[-1][1]!r} with "
                f"{counts[-1][0]} row{'s' * (counts[-1][0] > 1)}, and a task needs at least {1 + targets}, one as context; "
                "choose a column whose values stand in several rows each"
            )
        if len(few) == len(counts):
            raise InputError(
                f"{given}, and the largest task of {self.path}, {few[-1][1]!r}, has {few[-1][0]}; give --data.num_context "
                f"{min(self.num_context[0], few[0][0] - targets) or 1},{max(few[0][0] - targets, 1)}"
            )
        if few:
            raise InputError(
                f"{given}, and {len(few)} of the {len(counts)} tasks of {self.path} have fewer, the smallest is {few[0][1]!r} "
                f"with {few[0][0]}; lower --data.num_context, or remove these tasks from the file"
            )

    def describe_inputs(self) -> dict[str, Any]:
        scale = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        return {"task": self.task, "x": self.x, "y": self.y, **scale}

    def describe_task(self) -> dict[str, Any]:
        scale = zip(self.columns, self.mean.tolist(), self.std.tolist(), strict=True)
        return {
            "num_context": list(self.num_context),
            "num_target": list(self.num_target) if self.num_target else None,
            "num_tasks": len(self._tasks["test"]),
            "units": "standardised",
            "standardisation": {column: {"mean": mean, "std": std} for column, mean, std in scale},
        }

    def cluster(self, split: str, index: int) -> int:
        return index % len(self._tasks[split])

    def title(self, split: str, index: int) -> str:
        return self._task(split, index, self.generator(split, index))[0]

    def draw(self, split: str, index: int) -> Episode:
        context, target = self.draw_sizes(split, index, self.num_context, self.num_target, self._smallest[split])
        generator = self.generator(split, index)
        _, rows = self._task(split, index, generator)
        chosen = rows[choose(generator, len(rows), context + target)]
        x, y = chosen[:, : len(self.x)], chosen[:, len(self.x) :]
        return Episode(x[:context], y[:context], x[context:], y[context:])

    def _task(self, split: str, index: int, generator: np.random.Generator) -> tuple[str, np.ndarray]:
        """Name and rows of the task of an episode."""
        tasks = self._tasks[split]
        return tasks[generator.integers(len(tasks)) if split == "train" else index % len(tasks)]

    def references(self, split: str, index: int) -> dict[str, dict[str, float]]:
        xc, yc, xt, yt = self.draw(split, index)
        # Of the least-squares solutions the one with the smallest slopes, around the mean: there may be fewer rows than columns.
        slopes = np.linalg.lstsq(xc - xc.mean(0), yc - yc.mean(0), rcond=None)[0]
        predictions = {"context mean": yc.mean(0), "linear fit": yc.mean(0) + (xt - xc.mean(0)) @ slopes}
        found = {name: {"mse": float(np.mean((prediction - yt) ** 2))} for name, prediction in predictions.items()}
        mean, std = (
            np.stack(part, 1)
            for part in zip(*(one.predict(xc, yc[:, at], xt) for at, one in enumerate(self._mixed_effects)), strict=True)
        )
        found["mixed effects"] = {
            "mse": float(np.mean((mean - yt) ** 2)),
            "log_likelihood": float(np.mean(mixed_effects.log_density(yt, mean, std).sum(1))),
            "coverage": float(np.mean(np.abs(yt - mean) <= 1.96 * std)),
            "width": float(np.mean(2 * 1.96 * std)),
        }
        return found

    @cached_property
    def _mixed_effects(self) -> list[mixed_effects.MixedEffects]:
        """A model of each target."""
        inputs, models = len(self.x), []
        for at in range(len(self.y)):
            groups = [(rows[:, :inputs], rows[:, inputs + at]) for _, rows in self._tasks["train"]]
            episodes = (self.draw("val", index) for index in range(VALIDATION))
            models.append(mixed_effects.chosen(groups, [(xc, yc[:, at], xt, yt[:, at]) for xc, yc, xt, yt in episodes]))
        return models
