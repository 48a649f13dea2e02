"""The scalars of a run in its folder."""

import csv
import json

import pytest
from helpers.command_line import QUIET, SINUSOID, train

from app.runs.metrics_file import MetricsFile
from app.runs.recorded_metrics import read_metrics

LOGGED = [option for option in QUIET if "logger" not in option]
OPTIONS = [*SINUSOID, *LOGGED, "--trainer.log_every_n_steps=1", "--trainer.val_check_interval=2", "--model.inner_lr=0.01"]


def points(rows: list[dict]) -> list[tuple[str, int, float]]:
    return [(name, row["step"], value) for row in rows for name, value in row.items() if name not in ("step", "time")]


def test_a_line_cut_short_and_numbers_logged_before_are_not_kept_twice(tmp_path):
    first = MetricsFile(tmp_path, continues=False)
    for step in range(3):
        first.log_metrics({"train/loss": step / 10, "train/bad": float("inf")}, step)
    first.finalize("failed")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "train/lo')  # killed while it wrote
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3
    resumed = MetricsFile(tmp_path, continues=True)
    for step in range(1, 5):
        resumed.log_metrics({"train/loss": step / 10, "val/loss": 1.0}, step)
    resumed.log_metrics({"test/loss": 1.0}, 0)
    resumed.finalize("success")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [0, 1, 2, 3, 4]
    assert [row["step"] for row in rows if "val/loss" in row] == [1, 2, 3, 4]
    assert rows[0]["train/bad"] is None
    new = MetricsFile(tmp_path, continues=False)  # a new run in the same folder
    new.log_metrics({"train/loss": 0.0}, 0)
    new.finalize("success")
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_a_step_has_one_line(tmp_path):
    file = MetricsFile(tmp_path, continues=False)
    for step in (4, 9):
        file.log_metrics({"train/loss": 0.5, "epoch": 0}, step)
        file.log_metrics({"val/loss": step / 3, "epoch": 0}, step)
    file.log_metrics({"test/loss": 1.0}, 9)
    file.log_metrics({"test/loss": 2.0}, 9)  # a test that is repeated
    file.finalize("success")
    rows = [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(tmp_path / "metrics.jsonl")]
    whole = [{"step": step, "train/loss": 0.5, "epoch": 0, "val/loss": step / 3} for step in (4, 9)]
    assert rows == [whole[0], whole[1] | {"test/loss": 1.0}, {"step": 9, "test/loss": 2.0}]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 3 steps under CSVLogger, gone on with to 5, which had logged a fourth after its last checkpoint."""
    path = tmp_path_factory.mktemp("metrics") / "run"
    options = [*OPTIONS, "--trainer.logger=CSVLogger", f"--trainer.default_root_dir={path}"]
    drawn = "--trainer.callbacks+=callbacks.pictures.episode_gallery.EpisodeGallery"
    assert train("fit", *options, drawn, "--trainer.max_steps=3").status == 0
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "time": 0.0, "train/outer_loss": -1.0}) + "\n")
    done = train(*options, drawn, "--trainer.max_steps=5", "--ckpt_path=last")
    assert done.status == 0, done.err
    return path


def test_csv_logger_and_the_file_hold_the_same_numbers(run):
    logged = {}
    for file in run.glob("**/metrics.csv"):
        for row in csv.DictReader(file.read_text().splitlines()):
            logged |= {(name, int(row["step"])): float(value) for name, value in row.items() if value and name != "step"}
    kept = points(read_metrics(run / "metrics.jsonl"))
    assert {name for name, _, _ in kept} >= {"train/outer_loss", "train/inner_gradient_norm", "val/mse", "test/mse"}
    assert len({point[:2] for point in kept if point[0] != "epoch"}) == len([point for point in kept if point[0] != "epoch"])
    before = ("train/outer_loss", 3)  # logged before the fit was resumed, and not again
    for name, step, value in kept:
        if name != "epoch" and (name, step) != before:
            assert logged[name, step] == pytest.approx(value, rel=1e-6), (name, step)
    assert {(name, step) for name, step in logged if name != "epoch"} == {point[:2] for point in kept if point[0] != "epoch"}


def test_a_run_in_parts_logs_what_a_whole_one_logs(tmp_path):
    """At the same steps too: Lightning's are one too many after a fit that had ended."""
    logged = []
    for name, ends in (("whole", [4]), ("parts", [2, 4])):
        options = [*OPTIONS, "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path / name}"]
        for end in ends:
            resumed = [] if end == ends[0] else ["--ckpt_path=last"]
            assert train("fit", *options, f"--trainer.max_steps={end}", *resumed).status == 0
        found = points(read_metrics(tmp_path / name / "metrics.jsonl"))
        logged.append(sorted(point for point in found if point[0].startswith(("train/", "val/"))))
    assert {step for name, step, _ in logged[0] if name == "train/outer_loss"} == {0, 1, 2, 3}
    assert logged[0] == logged[1]


def test_pictures_and_environment_lie_in_the_folder(run):
    assert {path.name.rpartition("_")[0] for path in (run / "pictures").iterdir()} == {"val_episodes", "test_episodes"}
    environment = json.loads((run / "environment.json").read_text())
    assert {"torch", "device", "processes", "git_commit"} <= set(environment)
