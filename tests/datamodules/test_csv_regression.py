"""Few-shot regression of a CSV file: real tables, and everything that can be wrong with one."""

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import QUIET, train

from app.deploy.inputs import Columns
from app.deploy.table import read_table as deployed_table
from app.errors import InputError
from datamodules.csv_regression import CsvRegression
from datamodules.files.csv_table import read_table

REAL = {
    "gapminder.csv": {"task": "country", "x": "year", "y": "lifeExp"},
    "MathAchieve.csv": {"task": "School", "x": "SES", "y": "MathAch"},
}


def write(path: Path, rows: list[list], header: tuple[str, ...] = ("site", "dose", "age", "effect")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows_of(tasks: int = 10, points: int = 9) -> list[list]:
    generator = np.random.default_rng(0)
    return [[f"site {task}", *generator.normal(3, 2, 2), generator.normal(-1, 5)] for task in range(tasks) for _ in range(points)]


def ready(path: Path, **options) -> CsvRegression:
    data = CsvRegression(**{"path": str(path), "task": "site", "x": "dose", "y": "effect", "num_context": (2, 4), **options})
    data.setup()
    data.check()
    return data


@pytest.mark.parametrize("name", REAL)
def test_real_tables(name, data_dir):
    path, options = data_dir / "regression" / name, REAL[name]
    data = ready(path, **options, num_context=(3, 8))
    with path.open() as file:
        table = list(csv.DictReader(file))
    names = {split: {task for task, _ in tasks} for split, tasks in data._tasks.items()}
    assert set.union(*names.values()) == {row[options["task"]] for row in table}
    assert sum(map(len, names.values())) == len(set.union(*names.values()))
    numbers = np.array([[float(row[options[axis]]) for axis in "xy"] for row in table if row[options["task"]] in names["train"]])
    mean, std = numbers.mean(0), numbers.std(0)
    for split in ("train", "val", "test"):
        for index in range(0, 60, 7):
            name, xc, yc, xt, yt = data.title(split, index), *data.draw(split, index)
            assert name in names[split]
            points = np.concatenate([np.hstack([xc, yc]), np.hstack([xt, yt])]) * std + mean
            own = np.array([[float(row[options[axis]]) for axis in "xy"] for row in table if row[options["task"]] == name])
            found = {tuple(np.round(point, 6)) for point in points}
            assert found <= {tuple(np.round(point, 6)) for point in own} and 3 <= len(xc) <= 8
            if options["x"] == "year":  # no two rows are alike
                assert len(found) == 12


def test_incomplete_rows(tmp_path, capsys):
    """All are counted, and left out where that is asked for."""
    rows = rows_of()
    rows[3][1], rows[5][1], rows[5][3] = "", "NA", " "
    path = write(tmp_path / "table.csv", rows)
    with pytest.raises(
        InputError, match=r"3 empty cells in 2 of 90 rows \(dose 2, effect 1\), the first in line 5; .*drop_incomplete"
    ):
        ready(path)
    data = ready(path, drop_incomplete=True)
    assert "2 of 90 rows are left out" in capsys.readouterr().out
    assert sum(len(numbers) for tasks in data._tasks.values() for _, numbers in tasks) == 88


def test_every_row_a_task_of_its_own(tmp_path):
    rows = [[f"site {number}", *row[1:]] for number, row in enumerate(rows_of())]
    with pytest.raises(InputError, match="with 1 row, and a task needs at least 2, one as context; choose a column"):
        ready(write(tmp_path / "table.csv", rows))


def test_every_test_task_has_its_turn(tmp_path):
    data = ready(write(tmp_path / "table.csv", rows_of(10)))
    titles = [data.title("test", index) for index in range(6)]
    assert titles[:2] == titles[2:4] == titles[4:] and len(set(titles)) == 2
    assert [data.cluster("test", index) for index in range(4)] == [0, 1, 0, 1]


def test_sizes_are_equal_within_a_block_and_bounded_by_the_smallest_task(tmp_path):
    rows = rows_of(8, 12) + [["short", 1.0, 2.0, 3.0], ["short", 1.5, 2.0, 2.0], ["short", 0.5, 0.0, 1.0]] * 2
    data = ready(write(tmp_path / "table.csv", rows), meta_batch_size=5, split_fractions=(0.4, 0.3, 0.3))
    for split, tasks in data._tasks.items():
        smallest = min(len(numbers) for _, numbers in tasks)
        for first in range(0, 60, 5):
            sizes = {tuple(map(len, data.draw(split, first + number)[::2])) for number in range(5)}
            ((context, target),) = sizes
            assert 2 <= context <= 4 and context + target == smallest
    bounded = ready(tmp_path / "table.csv", num_target=(1, 2))
    assert {len(bounded.draw("train", index).query_x) for index in range(0, 400, 16)} == {1, 2}


def test_several_columns(tmp_path):
    data = ready(write(tmp_path / "table.csv", rows_of()), x=["dose", "age"], y=["effect"])
    assert data.input_shape == (2,) and data.output_size == 1
    assert [part.shape[1] for part in data.draw("val", 0)] == [2, 1, 2, 1]


def test_one_column_in_brackets_is_a_list_unless_it_is_called_so(tmp_path):
    path = write(tmp_path / "table.csv", [["a", 1.0, 2.0, 3.0]], ("site", "dose", "[age]", "age"))
    columns = {given: CsvRegression(path, "site", given, "age").x for given in ("[dose]", "[ dose ]", "dose", "[age]", "[none]")}
    assert columns == {given: ["dose"] for given in ("[dose]", "[ dose ]", "dose")} | {"[age]": ["[age]"], "[none]": ["[none]"]}
    with pytest.raises(InputError, match=r"has no column \[none\], effect, there are site, .*; give several columns as \[a,b\]"):
        ready(path, x="[none]")


def test_references_equal_numpy(tmp_path):
    data = ready(write(tmp_path / "table.csv", rows_of()))
    for index in range(10):
        xc, yc, xt, yt = (part[:, 0] for part in data.draw("test", index))
        found = data.references("test", index)
        assert found["context mean"]["mse"] == pytest.approx(np.mean((yt - yc.mean()) ** 2), rel=1e-10)
        line = np.polynomial.Polynomial.fit(xc, yc, 1)
        assert found["linear fit"]["mse"] == pytest.approx(np.mean((yt - line(xt)) ** 2), rel=1e-8)


def test_a_linear_fit_of_one_point_is_its_mean(tmp_path):
    data = ready(write(tmp_path / "table.csv", rows_of()), num_context=(1, 1), x=["dose", "age"])
    found = data.references("test", 0)
    assert found["linear fit"] == pytest.approx(found["context mean"])


def test_the_hash_depends_on_data_and_split(tmp_path):
    path = write(tmp_path / "table.csv", rows_of())
    hashes = {ready(path).manifest_hash, ready(path, split_seed=1).manifest_hash, ready(path, y="age").manifest_hash}
    assert len(hashes) == 3 and ready(path, meta_batch_size=3).manifest_hash in hashes
    lines = path.read_text().splitlines()
    path.write_text("\ufeff" + "\r\n".join([lines[0], *reversed(lines[1:])]))  # the byte order mark of Excel; other rows first
    assert ready(path).manifest_hash not in hashes and ready(path).mean == pytest.approx(
        ready(write(tmp_path / "other.csv", rows_of())).mean
    )


def broken(line: int, column: int, value: str) -> list[list]:
    rows = rows_of()
    rows[line - 2][column] = value
    return rows


FEW = [["tiny", 1.0, 2.0, 3.0], ["small", 1.0, 2.0, 3.0], ["small", 2.0, 2.0, 3.0]]
WRONG = {
    "missing file": (None, {}, ["table.csv does not exist", "site, dose, effect"]),
    "missing columns": (rows_of(), {"x": "doze", "y": "result"}, ["doze, result", "site, dose, age, effect"]),
    "missing task column": (rows_of(), {"task": "place"}, ["no column place", "site, dose, age, effect"]),
    "a column twice": (rows_of(), {"y": "dose"}, ["the column dose twice"]),
    "no columns": (rows_of(), {"x": []}, ["--data.x names no column"]),
    "text": (broken(7, 3, "high"), {}, ["line 7", "'high'", "column effect"]),
    "empty cell": (broken(3, 1, ""), {}, ["line 3", "1 empty cells", "dose 1", "--data.drop_incomplete"]),
    "not finite": (broken(4, 1, "inf"), {}, ["line 4", "'inf'", "column dose"]),
    "no task": (broken(5, 0, " "), {}, ["line 5", "nothing in the column site"]),
    "few cells": ([*rows_of(), ["site 3", 1.0]], {}, ["line 92", "2 cells", "has 4"]),
    "few rows": (rows_of() + FEW, {}, ["up to 4", "5 rows", "2 of the 12 tasks", "'tiny' with 1", "lower --data.num_context"]),
    "large context": (rows_of(), {"num_context": (2, 9)}, ["up to 9", "10 rows", "the largest task", "has 9"]),
    "many targets": (rows_of(), {"num_target": (6, 8)}, ["at least 6 as target", "10 rows", "has 9"]),
    "one group": (rows_of(1), {}, ["--data.task site is 'site 0' in all rows", "one task"]),
    "few groups": (rows_of(3), {}, ["the 3 tasks", "--data.task site", "as 2 / 0 / 1 to train", "at least 1"]),
    "no rows": ([], {}, ["no rows"]),
    "constant": ([[*row[:3], 7.3] for row in rows_of()], {}, ["has 7.3 as effect"]),
    "fractions": (rows_of(), {"split_fractions": (0.5, 0.4, 0.4)}, ["--data.split_fractions", "1.3"]),
    "sizes": (rows_of(), {"num_context": (0, 2)}, ["--data.num_context", "0 to 2"]),
}


@pytest.mark.parametrize("rows, options, words", WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_table(rows, options, words, tmp_path):
    path = tmp_path / "table.csv"
    if rows is not None:
        write(path, rows)
    with pytest.raises(InputError) as error:
        ready(path, **options)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_spaces_around_names_are_nothing(tmp_path):
    """As they are nothing to `predict`."""
    written = "site, dose , effect\na, 1, 2\na , 3, 4\n"
    (tmp_path / "table.csv").write_text(written)
    tasks, _ = read_table(tmp_path / "table.csv", "site", ["dose", "effect"])
    assert {name: rows.tolist() for name, rows in tasks.items()} == {"a": [[1, 2], [3, 4]]}
    reading = Columns(["dose"], ["effect"], [0.0, 0.0], [1.0, 1.0], "site")
    assert deployed_table(str(tmp_path / "table.csv"), "--support", reading, with_targets=True).tasks == {"a"}


def test_bytes_that_are_no_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"site,dose\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="cannot be read"):
        ready(path)


def test_a_wrong_table_on_the_command_line(tmp_path):
    path = write(tmp_path / "table.csv", broken(7, 3, "high"))
    options = ["--data=CsvRegression", f"--data.path={path}", "--data.task=site", "--data.x=dose", "--data.y=effect"]
    outcome = train("fit", *options, *QUIET, f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert outcome.status == 1 and len(outcome.err.splitlines()) == 1
    assert all(word in outcome.err for word in ("error: line 7 of --data.path", "'high'", "effect"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", ["1e308", "-3.4028235e38", "1e20"])
def test_a_number_that_leaves_the_others_no_digits(value, tmp_path):
    rows = rows_of(10)
    rows[4][2] = value
    path = write(tmp_path / "table.csv", rows)
    with pytest.raises(InputError, match=rf"line 6 of --data.path {path} has .* in the column age, so large"):
        ready(path, x=["dose", "age"])
