"""Every benchmark at its smallest; what it measures is not asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.drawings import SPLITS

from app.errors import InputError
from benchmarks import data, end_to_end, slow_disk, startup
from benchmarks.learn2learn_omniglot import tasksets, unpacked
from benchmarks.measure import describe_machine, interleaved, print_table, write_json
from datamodules import omniglot

SMALL = ["--model.backbone=Conv4", "--model.backbone.width=4", *QUIET, "--data.test_episodes=4"]


@pytest.fixture(autouse=True)
def two_drawers(monkeypatch, tmp_path):
    monkeypatch.setattr(omniglot, "DRAWERS", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def in_this_process(monkeypatch):
    """Commands of train.py run here, where everything is imported."""

    in_another = subprocess.run

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        if command[0] != sys.executable:  # what git or the platform say of the machine
            return in_another(command, **options)
        done = train(*command[2:])
        return subprocess.CompletedProcess(command, done.status, done.out, done.err)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.fixture(scope="module")
def rival(archives, tmp_path_factory) -> Path:
    return unpacked(archives, tmp_path_factory.mktemp("rival"))


def test_functions_are_timed_in_turn(tmp_path, capsys):
    calls = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3)
    assert calls == list("abababab")
    assert all(0 <= time.low <= time.median <= time.high for time in times.values())
    print_table("times", [{"name": name, "time": time, "ratio": 2.0, "none": None} for name, time in times.items()])
    write_json(tmp_path / "new" / "times.json", times=times, machine=describe_machine())
    assert "ratio" in capsys.readouterr().out
    content = json.loads((tmp_path / "new" / "times.json").read_text())
    assert content["times"]["a"]["median"] == times["a"].median and content["machine"]["threads"] == torch.get_num_threads()


def test_learn2learn_reads_the_same_pictures(archives, rival):
    tasks = tasksets(rival, ways=5, samples=2)
    images, labels = tasks.train.sample()
    assert images.shape == (10, 1, 28, 28) and sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sum(len(getattr(tasks, {"val": "validation"}.get(split, split)).dataset.labels) for split in SPLITS) == 1623


def test_missing_archives_are_named(tmp_path):
    with pytest.raises(InputError, match=r"images_background\.zip"):
        unpacked(tmp_path / "nothing", tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_data(archives, rival, monkeypatch):
    monkeypatch.setattr(data, "SHAPES", ((1, 1),))
    (row,) = data.measure(archives, rival.parent, repeats=1, num_batches=1)["rows"]
    assert row["ratio"] == row["ours (tasks/s)"] / row["learn2learn (tasks/s)"] > 0


@pytest.mark.slow
def test_end_to_end(archives, rival, in_this_process, monkeypatch):
    monkeypatch.setattr(end_to_end, "META_BATCH_SIZE", 2)
    monkeypatch.setattr(end_to_end, "VAL_TASKS", 4)
    mine = end_to_end.ours(archives, "cpu", 20, *SMALL, "--trainer.max_steps=4", "--trainer.val_check_interval=2")
    other = end_to_end.theirs(rival, "cpu", 0.5)
    assert mine["steps"] == 4 and len(mine["curve"]) == 2 and other["steps"] > 0 and len(other["curve"]) == other["steps"] - 1
    assert end_to_end.row("ours", mine).keys() == end_to_end.row("learn2learn", other).keys()


@pytest.mark.slow
def test_startup(archives, in_this_process):
    data = ["--data=Omniglot", f"--data.data_dir={archives}", "--data.queries=1", "--data.val_episodes=4"]
    options = ["--model.inner_lr=0.1", *data, *SMALL]
    times = startup.measure(*options, repeats=1, alone={"nothing": lambda: None})
    assert 0 < times["first step"].median < times["the whole run of one step"].median and "resumed step" in times


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_slow_disk(archives, in_this_process, monkeypatch, waits):
    monkeypatch.setattr(os, "fsync", os.fsync)  # which the run replaces
    data = ["--data=Omniglot", f"--data.data_dir={archives}", "--data.queries=1", "--data.val_episodes=4"]
    monkeypatch.setattr(slow_disk, "SETTING", ["--model=MAML", "--model.backbone=MLP", *data])
    length = ["--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"]
    seconds = slow_disk.seconds_of_steps(0.01, 0.02, waits, *length)
    assert len(seconds) == 3 and min(seconds) >= 0.02


@pytest.mark.parametrize("name", ["data", "end_to_end", "slow_disk", "startup"])
def test_help(name, monkeypatch, capsys):
    module = {"data": data, "end_to_end": end_to_end, "slow_disk": slow_disk, "startup": startup}[name]
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 0 and "--device" in capsys.readouterr().out
