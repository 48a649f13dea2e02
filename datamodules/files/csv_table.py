"""Tables of numbers in CSV files, grouped into tasks."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from math import isfinite, nan
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from app.csv_files import read_rows
from app.errors import InputError
from app.given_names import given_names

Tasks = dict[str, np.ndarray]
EMPTY = ("", "na", "n/a", "nan", "null", "none")  # what stands for no number


def columns_given(path: Path, given: list[str] | str) -> list[str]:
    """The columns that an option names, one or several; a file that cannot be read is told of later, by `read_table`."""
    names: list[str] = []
    if isinstance(given, str):
        with suppress(OSError, UnicodeError, csv.Error), path.open(newline="", encoding="utf-8-sig") as file:
            names = _header(read_rows(file))
    return given_names(given, names)


def _header(lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    return [name.strip() for name in next(lines, (1, []))[1]]  # as `predict` does


def read_table(path: Path, task: str, columns: list[str], drop_incomplete: bool = False) -> tuple[Tasks, str]:
    """The rows of each task, of shape (rows, columns) in float64, by the sorted names of the tasks; and a hash of all that.

    Args:
        path: a CSV file in UTF-8, its first line the names of the columns.
        task: the column that names the task of a row.
        columns: the columns to be read as numbers.
        drop_incomplete: leaves out the rows that lack a number, and says how many.

    Raises:
        InputError: the file, a column, a number or the name of a task is missing.
    """
    named = ", ".join([task, *columns])
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            tasks = _tasks(read_rows(file), path, task, columns, drop_incomplete)
    except FileNotFoundError as error:
        raise InputError(f"--data.path {path} does not exist; give a CSV file with the columns {named}") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"--data.path {path} cannot be read ({error}); give a CSV file in UTF-8, with commas") from error
    digest = sha256(named.encode())
    for name, rows in tasks.items():
        digest.update(f"{name} {rows.shape}".encode() + rows.tobytes())
    return tasks, digest.hexdigest()


def _tasks(lines: Iterator[tuple[int, list[str]]], path: Path, task: str, columns: list[str], drop_incomplete: bool) -> Tasks:
    names = _header(lines)
    if missing := [name for name in (task, *columns) if name not in names]:
        raise InputError(
            f"--data.path {path} has no column {', '.join(missing)}, there are {', '.join(names) or 'none'}; change --data.task, "
            "--data.x or --data.y; give several columns as [a,b]"
        )
    if twice := [name for name in (task, *columns) if names.count(name) > 1]:
        raise InputError(f"--data.path {path} has {names.count(twice[0])} columns {twice[0]}; rename all but one")
    place, places = names.index(task), [names.index(name) for name in columns]
    rows: dict[str, list[list[float]]] = {}
    numbers: list[tuple[int, str]] = []  # of the lines, and their tasks
    empty: dict[str, int] = dict.fromkeys(columns, 0)
    incomplete: list[int] = []  # lines
    for line, cells in lines:
        where = f"line {line} of --data.path {path}"
        if len(cells) != len(names):
            raise InputError(f"{where} has {len(cells)} cells, the first line has {len(names)}; correct it")
        if not (name := cells[place].strip()):
            raise InputError(f"{where} has nothing in the column {task}, which names its task; fill it in or remove the line")
        if lacking := [column for at, column in zip(places, columns, strict=True) if cells[at].strip().lower() in EMPTY]:
            empty |= {column: empty[column] + 1 for column in lacking}
            incomplete.append(line)
            continue
        rows.setdefault(name, []).append([number(cells[at], column, where) for at, column in zip(places, columns, strict=True)])
        numbers.append((line, name))
    if incomplete:
        _say_incomplete(path, empty, incomplete, len(numbers) + len(incomplete), drop_incomplete)
    if not rows:
        raise InputError(f"--data.path {path} has no rows below the names of its columns; add some")
    remaining = {name: iter(values) for name, values in rows.items()}
    _check_digits(np.array([next(remaining[name]) for _, name in numbers]), [line for line, _ in numbers], columns, path)
    return {name: np.array(rows[name]) for name in sorted(rows)}


def _say_incomplete(path: Path, empty: dict[str, int], incomplete: list[int], total: int, drop_incomplete: bool) -> None:
    """Says how many rows lack a number and are left out.

    Raises:
        InputError: they are not to be left out, or there are no others.
    """
    columns = ", ".join(f"{column} {count:,}" for column, count in empty.items() if count)
    if not drop_incomplete or len(incomplete) == total:
        raise InputError(
            f"--data.path {path} has {sum(empty.values()):,} empty cells in {len(incomplete):,} of {total:,} rows ({columns}), "
            f"the first in line {incomplete[0]}; fill them in, or leave these rows out by --data.drop_incomplete true"
        )
    rank_zero_only(print)(
        f"--data.path {path}: {len(incomplete):,} of {total:,} rows are left out, which lack a number ({columns})"
    )


def _check_digits(table: np.ndarray, lines: list[int], columns: list[str], path: Path) -> None:
    """Raises an InputError where a number is so large that the others of its column become one, once the column is scaled.

    Args:
        table: of shape (rows, columns).
        lines: of the file, one for each row.
        columns: names.
        path: of the file.
    """
    for column, values in zip(columns, table.T, strict=True):
        with np.errstate(all="ignore"):
            scaled = ((values - values.mean()) / values.std()).astype(np.float32)
        distinct = len(np.unique(values))
        if distinct > 2 and (not np.isfinite(scaled).all() or len(np.unique(scaled)) < distinct / 2):
            row = int(np.abs(values / 2 - np.median(values) / 2).argmax())
            raise InputError(
                f"line {lines[row]} of --data.path {path} has {values[row]:g} in the column {column}, so large that the other "
                "numbers could not be told apart; correct it, or remove the line if it stands for no value"
            )


def number(cell: str, column: str, where: str) -> float:
    """The finite number in a cell.

    Raises:
        InputError: there is none.
    """
    try:
        value = float(cell)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise InputError(f"{where} has {cell!r} in the column {column}; give a number there or remove the line")
    return value
