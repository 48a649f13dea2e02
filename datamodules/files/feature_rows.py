"""Rows of numbers with a class, from a file: .npz, .csv or .parquet."""

import csv
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from app.csv_files import read_rows
from app.errors import InputError

KINDS = (".npz", ".csv", ".parquet")


@dataclass
class FeatureRows:
    """The rows of a table.

    Attributes:
        columns: names of the numbers of a row.
        values: the numbers, finite, float64 of shape (rows, columns).
        texts: the other columns, by their names, each of shape (rows,).
    """

    columns: list[str]
    values: np.ndarray
    texts: dict[str, np.ndarray]


def read_feature_rows(path: str | Path, option: str, columns: list[str] | None, texts: tuple[str, ...] = ()) -> FeatureRows:
    """The rows of a file.

    Args:
        path: .npz, whose arrays have a row for each row, columns side by side where they have two axes; .csv in UTF-8, its first
            line the names of the columns; or .parquet.
        option: that gave it, for the messages.
        columns: names of the numbers; null for all columns that hold numbers and are none of `texts`.
        texts: names of columns that are read as text where they are there.

    Raises:
        InputError: it cannot be read, a column is missing, or a number is none.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        is_what = "is a folder" if place.is_dir() else "does not exist"
        raise InputError(f"{option} {path} {is_what}; give a {', '.join(KINDS[:2])} or {KINDS[2]} file")
    readers = {".npz": _from_npz, ".csv": _from_csv, ".parquet": _from_parquet}
    if place.suffix.lower() not in readers:
        raise InputError(f"{option} {path} is no table of a kind that is known; give a {', '.join(KINDS[:2])} or {KINDS[2]} file")
    found = readers[place.suffix.lower()](place, option)
    if twice := [name for name in found if list(found).count(name) > 1]:
        raise InputError(f"{option} {path} has two columns {twice[0]}; rename one")
    if missing := [name for name in columns or () if name not in found]:
        few = ", ".join(list(found)[:8]) + (", ..." if len(found) > 8 else "")
        raise InputError(f"{option} {path} has no column {missing[0]}, there are {few}")
    chosen = columns or [name for name, cells in found.items() if name not in texts and _is_numeric(cells)]
    if not chosen:
        raise InputError(f"{option} {path} has no column of numbers beside {', '.join(texts)}; add some")
    values = np.stack([_numbers(found[name], name, f"{option} {path}") for name in chosen], 1)
    if not len(values):
        raise InputError(f"{option} {path} has no rows; add some")
    if len(wrong := np.flatnonzero(~np.isfinite(values).all(1))):
        column = chosen[int(np.flatnonzero(~np.isfinite(values[wrong[0]]))[0])]
        raise InputError(
            f"{option} {path} has {len(wrong):,} rows with a number that is not finite, the first is row {wrong[0] + 1} in "
            f"column {column}; remove them"
        )
    others = {name: np.array([str(cell) for cell in cells]) for name, cells in found.items() if name not in chosen}
    return FeatureRows(list(chosen), values, others)


def _is_numeric(cells: np.ndarray) -> bool:
    """Whether some of the cells are numbers, so that all have to be."""
    if cells.dtype.kind in "fiub":
        return True
    return any(_number(cell) is not None for cell in cells[:100])


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _numbers(cells: np.ndarray, name: str, where: str) -> np.ndarray:
    try:
        return cells.astype(np.float64)
    except (TypeError, ValueError) as error:
        row = next(row for row, cell in enumerate(cells) if _number(cell) is None)
        raise InputError(f"{where} has {str(cells[row])!r} in row {row + 1} of column {name}, no number; correct it") from error


def _from_npz(path: Path, option: str) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive raises whatever its reader meets first
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{option} {path} is not a whole .npz file of numbers and texts ({reason}); make it again") from error
    rows = {len(array) for array in arrays.values() if array.ndim}
    if len(rows) != 1 or not all(array.ndim in (1, 2) for array in arrays.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(f"{option} {path} has arrays of these shapes: {shapes}; give all as many rows, in one or two axes")
    return _side_by_side(arrays)


def _side_by_side(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one axis; one of two axes is a column for each number of a row, embedding0, embedding1, ..."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        found |= {name: array} if array.ndim == 1 else {f"{name}{number}": part for number, part in enumerate(array.T)}
    return found


def _from_csv(path: Path, option: str) -> dict[str, np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = read_rows(file)
            names = [name.strip() for name in next(rows, (1, []))[1]]
            lines = list(rows)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{option} {path} cannot be read ({error}); give a CSV file, in UTF-8 and with commas") from error
    for line, cells in lines:
        if len(cells) != len(names):
            where = f"line {line} of {option} {path}"
            raise InputError(f"{where} has {len(cells)} cells, the first line has {len(names)}; correct it")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{option} {path} has two columns {twice}; rename one")
    table = np.array([cells for _, cells in lines], object).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def _from_parquet(path: Path, option: str) -> dict[str, np.ndarray]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:  # a newer one asks for a newer numpy
        raise InputError(
            f"{option} {path}: a .parquet file needs the package pyarrow ({error}); run `pip install pyarrow`, or save it as "
            ".csv or .npz"
        ) from error
    try:
        table = parquet.read_table(path)
    except Exception as error:  # a damaged file raises whatever its reader meets first
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{option} {path} is not a whole .parquet file ({reason}); make it again") from error
    columns = zip(table.column_names, table.columns, strict=True)
    return _side_by_side({name: _cells(column.to_pylist(), f"column {name} of {option} {path}") for name, column in columns})


def _cells(cells: list[Any], where: str) -> np.ndarray:
    """A column, of two axes where each cell is a list of numbers; blank where a cell is null."""
    lengths = {len(cell) if isinstance(cell, list) else None for cell in cells}
    if lengths == {None}:
        return np.asarray(["" if cell is None else str(cell) for cell in cells] if None in cells else cells)
    if len(lengths) > 1:
        named = ", ".join(sorted("none" if length is None else str(length) for length in lengths)[:4])
        raise InputError(f"{where} has lists of different lengths: {named}; give each row as many numbers")
    return np.asarray(cells)
