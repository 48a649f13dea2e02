"""Support and query rows of a person's own table."""

import csv
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from app.csv_files import read_rows
from app.deploy.inputs import Columns
from app.errors import InputError
from datamodules.files.csv_table import number


class Table(NamedTuple):
    """The rows of a CSV file.

    Attributes:
        names: of its columns.
        cells: as they stand there, row after row.
        x: the inputs, of shape (rows, x).
        y: the targets, of shape (rows, y), NaN where there are none.
        tasks: values of the column that named the tasks in training, where the table has it.
    """

    names: list[str]
    cells: list[list[str]]
    x: np.ndarray
    y: np.ndarray
    tasks: set[str]

    def others(self, reading: Columns) -> list[str]:
        """Columns that say nothing to the checkpoint."""
        return [name for name in self.names if name not in (*reading.x, *reading.y, reading.task)]

    def without(self, names: list[str]) -> "Table":
        """The same table without these columns that say nothing to the checkpoint."""
        kept = [column for column, name in enumerate(self.names) if name not in names]
        cells = [[row[column] for column in kept] for row in self.cells]
        return self._replace(names=[self.names[column] for column in kept], cells=cells)


def read_table(path: str, option: str, reading: Columns, with_targets: bool, one_task: bool = True) -> Table:
    """The rows of a table whose columns are called as in training.

    Args:
        path: of a CSV file in UTF-8, its first line the names of the columns.
        option: that gave it, for the messages.
        reading: says which columns are needed.
        with_targets: whether every row must have its targets.
        one_task: whether all rows must be of one task.

    Raises:
        InputError: the file, a column or a number is missing, or the rows are of several tasks.
    """
    columns = [*reading.x, *reading.y] if with_targets else reading.x
    wanted = f"a CSV file, in UTF-8 and with commas, with the columns {', '.join(columns)}"
    place = Path(path).expanduser()
    if place.is_dir() or place.suffix.lower() == ".zip":
        raise InputError(f"{option} {path} is no table, and the checkpoint is of a regression; give {wanted}")
    try:
        with place.open(newline="", encoding="utf-8-sig") as file:
            rows = read_rows(file)
            names = [name.strip() for name in next(rows, (1, []))[1]]
            lines = list(rows)
    except FileNotFoundError as error:
        raise InputError(f"{option} {path} does not exist; give {wanted}") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{option} {path} cannot be read ({error}); give {wanted}") from error
    if missing := [name for name in columns if name not in names]:
        raise InputError(
            f"{option} {path} has no column {', '.join(missing)}, there are {', '.join(names) or 'none'}; give {wanted}"
        )
    if twice := [name for name in (*reading.x, *reading.y) if names.count(name) > 1]:
        raise InputError(f"{option} {path} has {names.count(twice[0])} columns {twice[0]}; rename all but one")
    if not lines:
        raise InputError(f"{option} {path} has no rows below the names of its columns; add some")
    x, y = [], []
    for line, cells in lines:
        where = f"line {line} of {option} {path}"
        if len(cells) != len(names):
            raise InputError(f"{where} has {len(cells)} cells, the first line has {len(names)}; correct it")
        row = dict(zip(names, cells, strict=True))
        x.append([number(row[name], name, where) for name in reading.x])
        blank = [not with_targets and not row.get(name, "").strip() for name in reading.y]
        y.append([nan if empty else number(row[name], name, where) for name, empty in zip(reading.y, blank, strict=True)])
    cells = [cells for _, cells in lines]
    tasks = {row[names.index(reading.task)].strip() for row in cells} if reading.task in names else set()
    if one_task and len(tasks) > 1:
        few = ", ".join(sorted(tasks)[:3])
        raise InputError(
            f"{option} {path} has rows of {len(tasks)} tasks in the column {reading.task} ({few}, ...); give those of one"
        )
    return Table(names, cells, np.array(x), np.array(y), tasks)


def no_rows(reading: Columns) -> Table:
    """A table without rows."""
    return Table([], [], np.zeros((0, len(reading.x))), np.zeros((0, len(reading.y))), set())
