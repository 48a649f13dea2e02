"""Tables as CSV files, which no spreadsheet can be made to run by a name in them."""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what a spreadsheet takes a cell for a formula by


def escaped(cell: Any) -> Any:
    """A cell as it is written: a text that a spreadsheet would run gets an apostrophe before it; numbers stay."""
    if not isinstance(cell, str) or not cell.lstrip("'").startswith(FORMULA):
        return cell
    with suppress(ValueError):
        float(cell)
        return cell
    return f"'{cell}"


def unescaped(cell: str) -> str:
    """The cell that `escaped` made this one of."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA) else cell


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table whole or not at all, texts that begin like formulas escaped, floating-point numbers with 8 digits.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", newline="", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False) as beside:
        try:
            writer = csv.writer(beside)
            writer.writerows([f"{cell:.8g}" if isinstance(cell, float) else escaped(cell) for cell in row] for row in rows)
            beside.flush()
            os.fsync(beside.fileno())
            os.chmod(beside.name, 0o666 & ~_umask())
            os.replace(beside.name, path)
        except BaseException:
            os.unlink(beside.name)
            raise


def read_rows(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of an open table that have cells, each with the number of its last line.

    Raises:
        csv.Error: a quote is not closed, or what follows it is no comma.
    """
    reader = csv.reader(file, strict=True)
    for cells in reader:
        if cells:
            yield reader.line_num, [unescaped(cell) for cell in cells]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
