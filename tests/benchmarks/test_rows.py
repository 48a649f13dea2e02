"""The queue of published rows: what is next, what goes on, and what a record says."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import ROOT, train

from benchmarks import row_run, row_time, rows
from benchmarks.continual_runs import methods_of
from benchmarks.records import is_short, read_record, write_record
from benchmarks.row import Row, Score, read_rows
from benchmarks.row_lock import RowLock
from benchmarks.row_record import pick
from benchmarks.row_run import stages
from benchmarks.row_time import Seconds
from benchmarks.stream_row import StreamRow

LIST = """
waves:
  title: Sine waves
  lower_is_better: true
  scores:
    1 step: {name: mse, stage: 1}
    2 steps: {name: mse, stage: 2}
  rows:
    one: {method: MAML, config: small, published: [0.67 ± 0.1, null], source: a paper, budget: 12}
    two: {method: MAML, config: small, of: one, test: --data.shots 5}
    three: {method: MAML, config: small, options: --trainer.max_steps 4, why_not: too long}
"""
CONFIG = """
trainer: {max_steps: 12, val_check_interval: 4}
model: {class_path: app.algorithms.optimisation_based.maml.MAML, init_args: {inner_lr: 0.01, inner_steps: 1, eval_inner_steps: 2}}
data: {class_path: datamodules.sinusoid.Sinusoid, init_args: {queries: 5, meta_batch_size: 4, val_episodes: 4, test_episodes: 8}}
"""


class Ended:
    """A process that has ended."""

    def __init__(self, status: int):
        self.status = status

    def poll(self) -> int:
        return self.status

    def send_signal(self, number: int) -> None:
        """It is late for that."""

    def wait(self, seconds: float | None = None) -> int:
        return self.status


@pytest.fixture
def commands() -> list[list[str]]:
    """Those that were given to train.py."""
    return []


@pytest.fixture
def place(tmp_path, commands, monkeypatch) -> Path:
    """A folder with a list of rows, where train.py runs in this process."""

    def launch(arguments: list[str], threads: int, log: Path, lock: RowLock) -> Ended:
        commands.append(arguments[1:])
        done = train(*arguments[1:])
        log.write_text(done.out + done.err)
        return Ended(done.status)

    for path, text in {
        "benchmarks/rows.yaml": LIST,
        "configs/experiment/small.yaml": CONFIG,
        "configs/trainer/row.yaml": (ROOT / "configs" / "trainer" / "row.yaml").read_text(),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(row_run, "launch", launch)
    monkeypatch.setattr(rows, "POLL_SECONDS", 0.0)
    return tmp_path


def test_rows_are_trained_tested_and_recorded(place, commands, capsys):
    write_record("one", {"kind": "transcribed", "row": "one"})  # which makes room
    handler = signal.getsignal(signal.SIGTERM)
    assert rows.main(["--processes", "1"]) == 0 and signal.getsignal(signal.SIGTERM) is handler
    assert [command[0] for command in commands] == ["fit", "test", "test"]  # two rows of one training
    record = read_record("one")
    assert record["steps"] == record["budget"] == 12 and record["ended"] == "after its last step"
    assert record["scores"]["1 step"]["published"] == 0.67 and record["scores"]["1 step"]["published_ci95"] == 0.1
    assert record["scores"]["2 steps"]["published"] is None and record["source"] == "a paper"
    assert record["episodes"] == 8 and record["seed"] == 0 and record["protocol"]["shots"] == 10
    assert record["checkpoint_step"] in (4, 8, 12) and [step for step, _ in record["curve"]] == [4, 8, 12]
    assert record["seconds"] >= 0 and record["threads"] > 0 and record["versions"]["torch"]
    found = json.loads(Path("runs/rows/one/results.json").read_text())
    assert [one["mean"] for one in record["scores"].values()] == pytest.approx(found["mse"]["mean"][1:], abs=1e-4)
    assert read_record("two")["protocol"]["shots"] == 5 and read_record("three") is None
    commands.clear()
    assert rows.main([]) == 0 and not commands
    assert "2 done, 1 not here" in capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_of_a_record_repeat_it(place):
    assert rows.main(["--rows", "one"]) == 0
    first = read_record("one")
    for folder in ("runs", "results"):
        Path(folder).rename(f"old {folder}")
    for command in first["commands"]:
        assert train(*command.removeprefix("uv run train.py ").split()).status == 0
    again = json.loads(Path("runs/rows/one/results.json").read_text())
    assert again["mse"] == json.loads(Path("old runs/rows/one/results.json").read_text())["mse"]


def test_what_was_broken_off_is_recorded_and_goes_on(place, commands):
    (row, *_) = read_rows()
    assert rows.main(["--rows", "one", "--interim"]) == 0 and not commands  # nothing was begun
    assert train(*row.fit("data"), "--trainer.max_steps=5").status == 0
    (place / "runs/rows/one/recipe").write_text(row.training_recipe)
    assert rows.main(["--rows", "one", "--interim"]) == 0
    assert [command[0] for command in commands] == ["test"] and read_record("one")["ended"] == "not yet, at 5 of 12 steps"
    assert is_short(read_record("one")) and not row.is_recorded(read_record("one"))
    commands.clear()
    assert rows.main(["--rows", "one", "--interim"]) == 0 and not commands
    assert rows.main(["--rows", "one"]) == 0 and read_record("one")["steps"] == 12
    assert commands[0][0] == "fit" and commands[0][-2:] == ["--ckpt_path", "last"]


def test_a_row_with_other_settings_is_run_again(place):
    assert rows.main(["--rows", "one"]) == 0
    old = read_record("one")
    Path("configs/experiment/small.yaml").write_text(CONFIG.replace("inner_lr: 0.01", "inner_lr: 0.02"))
    assert rows.main(["--rows", "one"]) == 0
    assert read_record("one")["recipe"] != old["recipe"] and read_record("one")["config_hash"] != old["config_hash"]
    assert Path("runs/rows/one.1/checkpoints/last.ckpt").exists()


def test_what_fails_is_said_and_the_others_go_on(place, capsys):
    Path("configs/experiment/small.yaml").write_text(CONFIG)
    Path("configs/experiment/wrong.yaml").write_text(CONFIG.replace("max_steps: 12", "max_steps: 12, gradient_clip_val: -x"))
    Path("benchmarks/rows.yaml").write_text(
        LIST.replace("one: {method: MAML, config: small", "one: {method: MAML, config: wrong")
    )
    Path("benchmarks/rows.yaml").write_text(Path("benchmarks/rows.yaml").read_text().replace("why_not: too long", ""))
    assert rows.main([]) == 1
    assert "error: one: " in capsys.readouterr().err and read_record("one") is None and read_record("three")["steps"] == 4


def test_hours_are_those_of_measured_steps_and_kept(place, monkeypatch, capsys):
    measured = []

    def some(row: Row, data_dir: str, threads: int) -> Seconds:
        measured.append(row.name)
        return Seconds(row.training_recipe, threads, step=300.0, episode=100.0, validated=3, interval=4, load=9.0)

    monkeypatch.setattr(row_time, "_measured", some)
    assert rows.main(["--list", "--rows", "one", "two"]) == 0
    assert measured == ["one"]  # two is the same training
    shown = capsys.readouterr().out
    assert shown.count("1.25") == 2 and "the load was up to 9" in shown  # 12 steps and 3 validations
    assert rows.main(["--list", "--rows", "one"]) == 0 and measured == ["one"]
    Path("configs/experiment/small.yaml").write_text(CONFIG.replace("inner_lr: 0.01", "inner_lr: 0.02"))
    assert rows.main(["--list", "--rows", "one", "--record"]) == 0 and measured == ["one", "one"]
    assert read_record("hours")["hours"] == {"one": 1.25} and read_record("hours")["threads"] == 1
    assert rows.main(["--record"]) == 1 and "error: --record is for --list" in capsys.readouterr().err


HOLD = """
import sys
from pathlib import Path
from benchmarks.row_lock import RowLock
lock = RowLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
input()
"""


def test_a_lock_keeps_others_away_until_its_process_is_dead(place, commands):
    path = Path("runs/rows/one.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "True\n"
        assert rows.main(["--rows", "one"]) == 0 and not commands
        assert f"process {other.pid} on " in RowLock(path).holder()
        other.kill()
    lock = RowLock(path)
    assert lock.acquire() and not RowLock(path).acquire()
    lock.release()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("null], source: a paper", "null]", "one has a published number without a source"),
        ("[0.67 ± 0.1, null]", "0.67", "one has 1 published numbers for 2 scores"),
        ("of: one", "of: three", "two is of three, which does not stand above it"),
        ("budget: 12", "buget: 12", "buget"),
    ],
)
def test_a_wrong_list_is_named(place, capsys, old, new, message):
    Path("benchmarks/rows.yaml").write_text(LIST.replace(old, new))
    assert rows.main([]) == 1 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "args, message", [("--rows x*", "--rows x* matches none"), ("--hours 0", "--hours is 0.0"), ("--threads 0", "--threads")]
)
def test_wrong_options(place, capsys, args, message):
    assert rows.main(args.split()) == 1 and message in capsys.readouterr().err


def test_every_row_of_the_list_has_its_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = read_rows()
    assert len({row.name for row in listed}) == len(listed)
    assert all(row.steps > 0 and (isinstance(row, StreamRow) or row.recipe) for row in listed)


def test_a_stream_is_one_command_that_puts_itself_on_record(place, monkeypatch):
    monkeypatch.chdir(ROOT)
    (stream,) = rows.chosen(["permuted_mnist"])
    ((state, command),) = stages(stream, "data", True)
    options = "--stream permuted_mnist --seeds 5 --processes 1 --record --data_dir data"
    assert state == "training" and command == ["-m", "benchmarks.continual", *options.split()]
    found = [{"method": method, "seeds": 5} for method in methods_of("permuted_mnist")]
    assert stream.is_recorded({"kind": "stream", "rows": found}) and not stream.is_recorded({"kind": "stream", "rows": found[1:]})
    assert stream.steps == 5 * len(found) and not stream.is_recorded(None)


@pytest.mark.slow
def test_the_options_of_every_row_are_understood(monkeypatch):
    """Each option of a method or a data set once: a config by itself is built by test_configs."""
    monkeypatch.chdir(ROOT)
    seen, wrong = set(), {}
    for row in read_rows():
        if not isinstance(row, Row):
            continue
        words = shlex.split(f"{row.options} {row.test}")
        given = {(word, row.settings["model" if word.startswith("--model.") else "data"]["class_path"]) for word in words[::2]}
        if not given <= seen:
            seen |= given
            done = train(*row.fit("DIR"), *shlex.split(row.test), "--print_config")
            if done.status:
                wrong[row.name] = done.err
    assert len(seen) > 20 and not wrong


def test_a_test_of_fewer_inner_steps_gives_no_number_for_more():
    results = {"mse": {"inner_steps": [0, 1], "mean": [4.0, 0.5], "ci95": [0.2, 0.1]}}
    assert pick(results, Score("1 step", "mse", 1)) == (0.5, 0.1)
    assert pick(results, Score("5 steps", "mse", 5)) is None
