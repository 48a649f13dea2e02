"""The table of a stream."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import continual, continual_together, continual_tuning
from benchmarks.continual import rows_of, tables
from benchmarks.continual_runs import Cell, glances_for, memory_of, methods_of, rate_of, repetitions, run, samples_for


def result(accuracy: float, seconds: float) -> dict:
    views = {view: {"ACC": {"mean": accuracy + shift, "ci95": None}} for view, shift in (("class", 0.0), ("task", 0.1))}
    return {
        "views": views,
        "prequential accuracy": {"mean": 0.3},
        "cost": {"memory_bytes": 2048, "samples": 10, "gradients": 20, "seconds": seconds},
    }


def test_a_row_is_the_mean_over_seeds_with_its_interval():
    rows = rows_of({Cell("er", None, seed): result(accuracy, 2.0 * seed) for seed, accuracy in enumerate((0.5, 0.6, 0.7))})
    assert [row["view"] for row in rows] == ["class-incremental", "task-incremental"]
    mean, interval = rows[0]["scores"]["ACC"]
    assert mean == pytest.approx(0.6) and interval == pytest.approx(4.302653 * 0.1 / 3**0.5)  # Student's t
    assert rows[0]["cost"]["seconds"] == pytest.approx(2.0) and rows[0]["seeds"] == 3


def test_methods_are_compared_seed_by_seed():
    """An order of the classes that is hard for all tells nothing of which is better."""
    scores = {"better": (0.4, 0.8, 0.61), "worse": (0.3, 0.7, 0.5)}
    rows = rows_of({Cell(name, None, seed): result(score, 1.0) for name, own in scores.items() for seed, score in enumerate(own)})
    better, worse = (next(row for row in rows if row["method"] == name and row["view"] == "class-incremental") for name in scores)
    assert better["to_best"] is None and better["by_seed"] == [0.4, 0.8, 0.61]
    mean, interval = worse["to_best"]
    assert mean == pytest.approx(-0.31 / 3) and interval == pytest.approx(4.302653 * np.std([0.1, 0.1, 0.11], ddof=1) / 3**0.5)
    assert interval < 0.02 < worse["scores"]["ACC"][1]
    table, *_ = tables(rows, "split_mnist")
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["least (seed)"] == ["40.0 (0)", "30.0 (0)"] and cells["to the best"] == ["-", "-10.3 ± 1.4"]


def test_seeds_of_a_method_that_can_are_one_run(monkeypatch):
    ran = []

    def run_all(cells, *where):
        ran.extend(cells)
        found = {}
        for cell in cells:
            several = result(0.1, 1.0) | {"streams": cell.streams}
            for score in (several["views"]["class"]["ACC"], several["views"]["task"]["ACC"], several["prequential accuracy"]):
                score["of_streams"] = [(cell.seed + number) / 100 for number in range(cell.streams)]
            found[cell] = several
        return found

    monkeypatch.setattr(continual_together, "run_all", run_all)
    cells = [Cell(method, None, seed, rate=0.1) for seed in range(25) for method in ("er", "joint")]
    found = continual_together.run_seeds(cells, 1, "rotated_mnist")
    assert [*found] == cells and len(ran) == 2 + 25
    assert [cell[::7] for cell in ran if cell.method == "er"] == [("er", 20), ("er", 5)]
    assert all(one["views"]["class"]["ACC"]["mean"] == cell.seed / 100 for cell, one in found.items() if cell.method == "er")
    assert found[cells[1]]["views"]["class"]["ACC"]["mean"] == 0.1
    assert ran[0].folder(Path()) != ran[0]._replace(streams=1).folder(Path())
    assert not continual_together.can_go_together("omniglot_stream", "er")  # a convolutional network
    assert not continual_together.can_go_together("rotated_mnist", "gdumb")


def test_the_best_method_stands_first():
    rows = rows_of({Cell("worse", None, 0): result(0.2, 1.0), Cell("better", None, 0): result(0.4, 1.0)})
    table, *_ = tables(rows, "split_mnist")
    assert list(table.columns[0].cells) == ["better", "worse"] and list(table.columns[1].cells) == ["40.0", "20.0"]
    assert "1 seed, too few to rank methods" in table.title
    enough = [row | {"seeds": 5} for row in rows]
    assert next(tables(enough, "split_mnist")).title.endswith("5 seeds")


def test_an_equal_budget_counts_what_is_not_repeated():
    """EWC's Fisher information is a gradient a sample that glances do not repeat, and A-GEM's references are 25 that they do."""

    def whole(gradients: int) -> dict:
        return {"cost": {"samples": 100, "gradients": gradients}}

    assert glances_for(8.0, whole(200), whole(300)) == 7
    assert glances_for(104.0, whole(2600), whole(5200)) == 4
    assert glances_for(1.0, whole(2600), whole(5200)) == 1


def test_an_equal_memory_counts_what_is_no_sample():
    """La-MAML's step sizes take room that replay has for samples."""

    def with_bytes(count: int) -> dict:
        return {"cost": {"memory_bytes": count}}

    assert samples_for(1600.0, (10, with_bytes(80)), (20, with_bytes(160))) == 200
    assert samples_for(1600.0, (10, with_bytes(680)), (20, with_bytes(760))) == 125
    assert samples_for(500.0, (10, with_bytes(680)), (20, with_bytes(760))) < 1
    assert memory_of("rotated_mnist", "er") == 200 and memory_of("rotated_mnist", "finetune") is None


def test_what_is_undefined_has_no_number():
    undefined = result(0.5, 1.0) | {"prequential accuracy": {"mean": None, "ci95": None, "undefined": "it learns at the end"}}
    undefined["views"]["class"]["LA"] = {"mean": None, "ci95": None, "undefined": "it learns at the end"}
    rows = rows_of({Cell("joint", None, 0): undefined})
    table, *_ = tables(rows, "split_mnist")
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["ACC"] == ["50.0"] and cells["LA"] == cells["prequential accuracy"] == ["-"]


def test_a_stream_without_tests_has_its_prequential_accuracy():
    bare = result(0.5, 1.0) | {"views": {}}
    (row,) = rows_of({Cell("cmaml", None, 0): bare})
    assert row["view"] == "boundary-free" and row["scores"] == {"prequential accuracy": (0.3, None)}
    (table,) = tables([row], "osaka")
    assert "30.0" in [cell for column in table.columns for cell in column.cells]


def test_every_config_of_a_stream_is_a_row():
    assert {"er", "la_maml", "finetune", "mer"} <= set(methods_of("rotated_mnist"))
    assert repetitions("rotated_mnist", "er") == "glances" and repetitions("rotated_mnist", "mer") == "num_batches"
    assert repetitions("split_mnist", "gdumb") == "epochs" and methods_of("glyphs_stream") == ["er"]


@pytest.mark.slow
def test_a_finished_cell_is_not_run_again_and_a_broken_one_goes_on(tmp_path, data_dir, monkeypatch):
    small = ("--data.num_experiences=2", "--data.train_images=30", "--data.test_images=20")
    cell = Cell("er", None, 1, glances=2)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    broken = run(cell, "rotated_mnist", tmp_path, str(data_dir), *small, "--trainer.max_steps=4")
    assert broken["steps"] == 4
    (cell.folder(tmp_path) / "results.json").unlink()
    found = run(cell, "rotated_mnist", tmp_path, str(data_dir), *small)
    assert found["steps"] == 6 and found["cost"]["gradients"] == 2 * (60 + 50) and found["seed"] == 1
    (cell.folder(tmp_path) / "results.json").unlink()
    assert run(cell, "rotated_mnist", tmp_path, str(data_dir), *small)["views"] == found["views"]  # killed after the last step
    (cell.folder(tmp_path) / "recipe").write_text("another config")
    whole = run(cell, "rotated_mnist", tmp_path, str(data_dir), *small)
    assert whole["views"] == found["views"] and whole["steps"] == 6
    found = whole
    monkeypatch.setattr("app.main.main", None)
    assert run(cell, "rotated_mnist", tmp_path, str(data_dir)) == found
    monkeypatch.setattr("benchmarks.continual_runs.code_version", lambda: "of another day")
    with pytest.raises(TypeError):  # it would be run again
        run(cell, "rotated_mnist", tmp_path, str(data_dir))


@pytest.mark.slow
def test_a_run_of_several_seeds_is_those_of_each(tmp_path, data_dir, monkeypatch):
    small = ("--data.num_experiences=2", "--data.train_images=30", "--data.test_images=20")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(
        continual_together, "run_all", lambda cells, processes, *where: {cell: run(cell, *where) for cell in cells}
    )
    cells = [Cell("er", None, seed) for seed in (0, 1)]
    found = continual_together.run_seeds(cells, 1, "rotated_mnist", tmp_path, str(data_dir), *small)
    alone = run(cells[1], "rotated_mnist", tmp_path, str(data_dir), *small)
    assert found[cells[1]]["views"]["domain"]["ACC"]["mean"] == pytest.approx(alone["views"]["domain"]["ACC"]["mean"], abs=0.03)
    assert found[cells[1]]["cost"]["gradients"] == alone["cost"]["gradients"]


@pytest.mark.slow
def test_memories_are_made_equal(tmp_path, data_dir, monkeypatch):
    """La-MAML keeps 89,610 step sizes of 4 bytes beside its samples."""
    monkeypatch.setattr(continual, "run_all", lambda cells, processes, *where: {cell: run(cell, *where) for cell in cells})
    monkeypatch.setattr(sys, "argv", ["train.py"])
    options = Namespace(stream="rotated_mnist", processes=1, memory_kib=506.0)
    found = continual.memories(options, ["er", "finetune", "la_maml"], tmp_path, str(data_dir))
    assert found == {("er", None): 506 * 1024 // (784 + 16), ("la_maml", None): (506 * 1024 - 4 * 89_610) // (784 + 16)}
    options.memory_kib = 300.0
    with pytest.raises(RuntimeError, match="--memory_kib 300 has no room for a sample of la_maml"):
        continual.memories(options, ["la_maml"], tmp_path, str(data_dir))


def test_every_rate_is_chosen_by_one_rule(monkeypatch):
    """The best on validation streams that no table has; a method without steps has no rate."""
    best, ran = {"er": 0.03, "la_maml": 0.3, "ftml": 0.001}, []

    def run_all(cells, *where):
        ran.extend(cells)
        return {cell: result(0.9 - abs(cell.rate - best[cell.method]) + 0.01 * (cell.seed % 2), 2.0) for cell in cells}

    monkeypatch.setattr(continual_tuning, "run_seeds", run_all)
    cells = [Cell(method, None, 0, memory=50) for method in ("er", "la_maml", "ftml")] + [Cell("ncm", None, 0)]
    monkeypatch.setattr(continual_tuning, "rate_of", lambda _, method: method != "ncm" and rate_of("rotated_mnist", method))
    found = continual_tuning.tune(cells, 2, 1, "rotated_mnist")
    assert {cell.method: tuning.rate for cell, tuning in found.items()} == best
    assert all(cell.validation and cell.seed >= 1000 and cell.memory == 50 for cell in ran) and len(ran) == 3 * 5 * 2
    assert 0.3 in found[cells[0]].grid and 0.3 not in found[cells[2]].grid  # Adam's
    words = continual_tuning.in_words(found, "rotated_mnist")
    assert "0.003, 0.01, 0.03, 0.1, 0.3 (Adam: 0.0001, 0.0003, 0.001, 0.003, 0.01) on 2 validation streams" in words
    assert "30 runs, 60 s" in words and "held out" in words
    assert continual_tuning.score_of({"views": {}, "prequential accuracy": {"mean": None}}) == 0


@pytest.mark.slow
def test_a_validation_run(tmp_path, data_dir, monkeypatch):
    small = ("--data.num_experiences=2", "--data.train_images=30", "--data.test_images=20")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    cell = Cell("er", None, 1000, rate=0.03, validation=True)
    assert 0 <= continual_tuning.score_of(run(cell, "rotated_mnist", tmp_path, str(data_dir), *small)) <= 1
    config = (cell.folder(tmp_path) / "config.yaml").read_text()
    assert "evaluate_on: val" in config and "lr: 0.03" in config and "rate_0.03" in str(cell.folder(tmp_path))
    assert cell.folder(tmp_path) != cell._replace(validation=False).folder(tmp_path)
    diverged = Cell("er", None, 1000, rate=1e30, validation=True)
    assert continual_tuning.score_of(run(diverged, "rotated_mnist", tmp_path, str(data_dir), *small)) == 0


def test_wrong_options(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["continual", "--stream", "rotated_mnist", "--methods", "err"])
    assert continual.main() == 1
    assert "--methods err: no config for rotated_mnist; there are agem" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["continual", "--stream", "rotated_mnist", "--gradients_per_sample", "0"])
    assert continual.main() == 1
    assert "--gradients_per_sample is 0.0; give a number above 0" in capsys.readouterr().err
