"""The groups of a table, one after the other."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import InputError, check_above_zero
from datamodules.base.regression_stream import RegressionStream
from datamodules.files.csv_table import Tasks, columns_given, number, read_table


class TableStream(RegressionStream):
    """Every value of one column of a CSV file is an experience: to predict the columns `y` of its rows from the columns `x`.

    Groups come in the order of their numbers, where all are numbers, else in one that the seed draws. x and y are standardised
    by mean and standard deviation over the training rows of all groups, and every error is in these units.

    Args:
        path: a CSV file in UTF-8, its first line the names of the columns.
        group: the column that names the experience of a row.
        x: the column of the input, or several.
        y: the column of the target, or several.
        group_width: numbers of the column `group` that make one experience: 10 makes decades of years; null for each its own.
        index_is_input: whether the number of the group is part of the input, one-hot.
        num_groups: of the stream, the first ones; null for all.
        test_fraction: share of the rows of a group that are held out to score it, at least one.
        drop_incomplete: leaves out the rows that lack a number, and says how many.
        kwargs: of RegressionStream.
    """

    def __init__(
        self,
        path: Path,
        group: str,
        x: list[str] | str,
        y: list[str] | str,
        group_width: float | None = None,
        index_is_input: bool = True,
        num_groups: int | None = None,
        test_fraction: float = 0.25,
        drop_incomplete: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_above_zero("data", group_width=group_width, num_groups=num_groups)
        if not 0 < test_fraction < 1:
            raise InputError(f"--data.test_fraction is {test_fraction}; give a share between 0 and 1")
        self.path, self.group, self.group_width, self.index_is_input = Path(path).expanduser(), group, group_width, index_is_input
        self.x, self.y = columns_given(self.path, x), columns_given(self.path, y)
        if not (self.x and self.y):
            raise InputError("--data.x and --data.y name the columns of inputs and targets; give at least one of each")
        self.num_groups, self.test_fraction, self.drop_incomplete = num_groups, test_fraction, drop_incomplete
        self._groups: Tasks = {}

    @property
    def num_inputs(self) -> int:
        return len(self.x)

    @property
    def output_size(self) -> int:
        return len(self.y)

    def setup(self, stage: str | None = None) -> None:
        if not self._groups:
            columns = list(dict.fromkeys([*self.x, *self.y]))
            tables, self._digest = read_table(self.path, self.group, columns, self.drop_incomplete)
            places = [columns.index(name) for name in (*self.x, *self.y)]
            self._groups = {name: rows[:, places] for name, rows in self._joined(tables).items()}

    def _joined(self, tables: Tasks) -> Tasks:
        """The groups of which the table has the rows, in the order of their numbers where there are any."""
        if not self.group_width:
            return tables
        where = f"--data.group_width {self.group_width:g} needs numbers, and --data.path {self.path}"
        starts = {name: number(name, self.group, where) // self.group_width * self.group_width for name in tables}
        joined: dict[float, list[np.ndarray]] = {}
        for name, rows in tables.items():
            joined.setdefault(starts[name], []).append(rows)
        return {f"{start:g}": np.concatenate(parts) for start, parts in joined.items()}

    def check(self) -> None:
        small = next((name for name in self.titles if len(self._groups[name]) < 2), None)
        if small is not None or len(self.titles) < 2:
            found = f"one row of {small!r}, of which none can be held out" if small is not None else "one group alone"
            raise InputError(
                f"--data.path {self.path} has {found}, by --data.group {self.group}; choose another column, join groups by "
                "--data.group_width, or add rows"
            )
        if self.num_groups and self.num_groups > len(self._groups):
            raise InputError(
                f"--data.num_groups is {self.num_groups}, and {self.path} has {len(self._groups)}; give at most that"
            )

    @cached_property
    def titles(self) -> list[str]:
        self.setup()  # the size of the inputs is asked before
        try:
            names = sorted(self._groups, key=float)
        except ValueError:
            names = self.generator("groups").permutation(sorted(self._groups)).tolist()
        return names[: self.num_groups]

    @cached_property
    def functions(self) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
        parts = []
        for place, name in enumerate(self.titles):
            rows = self.generator("rows", place).permutation(self._groups[name])
            held = max(1, int(len(rows) * self.test_fraction))
            parts.append({"test": rows[:held], "train": rows[held:]})
        known = np.concatenate([part["train"] for part in parts])
        mean, std = known.mean(0), known.std(0)
        std[std == 0] = 1  # a column of one value tells nothing
        inputs = self.num_inputs
        scaled = [{split: (rows - mean) / std for split, rows in part.items()} for part in parts]
        return [{split: (rows[:, :inputs], rows[:, inputs:]) for split, rows in part.items()} for part in scaled]

    @property
    def options(self) -> dict[str, Any]:
        names = ("group", "x", "y", "group_width", "index_is_input", "num_groups", "test_fraction", "drop_incomplete")
        return {name: getattr(self, name) for name in names}

    @property
    def digest(self) -> str:
        return self._digest
