"""Rows that take long to compute: they survive a stop at any moment."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.files.feature_cache import cached_rows

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


class Rows:
    """Computes the rows, until it is stopped."""

    def __init__(self, until: int = 10):
        self.until, self.asked = until, []

    def __call__(self, first: int, end: int) -> np.ndarray:
        if first >= self.until:
            raise KeyboardInterrupt
        self.asked.append((first, end))
        return ROWS[first:end]


def rows(folder: Path, compute: Rows) -> np.ndarray:
    return cached_rows(str(folder), "rows", "key", ROWS.shape, "float32", compute, together=3)


def test_rows_are_computed_once(tmp_path):
    first, second = Rows(), Rows()
    assert np.array_equal(rows(tmp_path, first), ROWS)
    assert first.asked == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert np.array_equal(rows(tmp_path, second), ROWS) and not second.asked
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["rows"]  # nothing is left of the way there


def test_who_was_stopped_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, Rows(until=6))
    (unfinished,) = tmp_path.glob("*.unfinished")
    with (unfinished / "features.npy").open("r+b") as file:  # the rows that were being written when the power went
        file.seek(0, 2)
        file.write(b"half of a row")
    rest = Rows()
    assert np.array_equal(rows(tmp_path, rest), ROWS)
    assert rest.asked == [(6, 9), (9, 10)]


def test_what_is_unfinished_and_damaged_is_begun_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, Rows(until=6))
    (unfinished,) = tmp_path.glob("*.unfinished")
    (unfinished / "done.json").write_text("{")
    assert np.array_equal(rows(tmp_path, Rows()), ROWS)
