"""Tables that no spreadsheet can be made to run, and that are read back as what they were."""

import csv

import pytest

from app.csv_files import read_rows, write_csv

NAMES = ["=HYPERLINK(0)", "+1+1", "@SUM(A1)", "-x", "\tx", "\n=1", "＝1+1", "'=1", "''=1"]
NAMES += ["'plain", "plain", "-0.5", "a,b", 'say "so"', "", " a "]


def test_what_goes_in_comes_back(tmp_path):
    write_csv(tmp_path / "table.csv", [NAMES, NAMES])
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [cells for _, cells in read_rows(file)] == [NAMES, NAMES]


def test_no_cell_is_a_formula(tmp_path):
    write_csv(tmp_path / "table.csv", [[*NAMES, -0.25, -3]])
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.reader(file)
    assert [cell for cell in row if cell[:1] in tuple("=+-@\t\r\n＝＋－＠")] == ["-0.5", "-0.25", "-3"]


def test_a_table_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    write_csv(tmp_path / "table.csv", [["old"]])
    with pytest.raises(ZeroDivisionError):
        write_csv(tmp_path / "table.csv", ([1 / number] for number in (1, 0)))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"] and (tmp_path / "table.csv").read_text() == "old\n"
