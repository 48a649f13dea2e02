"""Two processes do what one does."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import QUIET, ROOT, SINUSOID, fork, start
from ddp_worker import cases, run, work

CASES = {case.name: case for case in cases()}
WEIGHTS = {"64-true": 1e-10, "32-true": 5e-5}  # relative to the norm of a tensor
SCORES = {"64-true": 1e-12, "32-true": 1e-4}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """What two processes wrote."""
    folder, port = tmp_path_factory.mktemp("ddp"), free_port()
    processes = [fork(work, rank, port, folder) for rank in range(2)]
    for process in processes:
        process.join(480)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0], "".join(log.read_text() for log in folder.glob("*.log"))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name, pair):
    one, two, other = run(CASES[name]), *(torch.load(pair / f"{name}.{rank}.pt") for rank in range(2))
    precision = CASES[name].precision
    for key, expected in one["state"].items():
        assert torch.equal(two["state"][key], other["state"][key]), key
        assert (two["state"][key] - expected).norm() <= WEIGHTS[precision] * expected.norm(), key
    assert len(one["scores"]) == 9  # no multiple of 2: every episode once, in order, none filled up
    assert two["scores"][:, 0, 0].tolist() == list(range(9))
    torch.testing.assert_close(two["scores"], one["scores"], rtol=SCORES[precision], atol=0)
    assert bool(one["confusion"]) == (CASES[name].data == "Blots") and other["confusion"] == ()
    if precision == "64-true":
        assert all(torch.equal(*counts) for counts in zip(one["confusion"], two["confusion"], strict=True))
    if "groups" in one["evaluation"]:
        oracles = [of["evaluation"]["references"]["oracle"]["log_likelihood"] for of in (one, two)]
        assert oracles[0] == oracles[1] and other["evaluation"]["references"] == {}
        groups = [{name: part["num_episodes"] for name, part in of["evaluation"]["groups"].items()} for of in (one, two, other)]
        assert groups == [{"rbf": 4, "matern52": 4, "periodic": 1}] * 3


def test_replicas_that_differ_are_found(pair):
    for rank in range(2):
        message = (pair / f"disturbed.{rank}").read_text()
        assert "rank 1 differ" in message and "at step" in message


RUN = [*SINUSOID, *QUIET, "--model.inner_lr=0.01", "--trainer.devices=2", "--trainer.strategy=ddp"]


def start_pair(*args, folder: Path) -> list:
    """Both processes of one run, as torchrun starts them."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    run_dir = f"--trainer.default_root_dir={folder}"
    return [
        start("fit", *RUN, run_dir, *args, output=folder.with_suffix(f".{rank}"), **job, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]


def end(processes: list) -> list[int]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def output(folder: Path) -> str:
    return "".join(folder.with_suffix(f".{rank}").read_text() for rank in range(2))


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)


def test_killed_and_resumed(tmp_path):
    run = ["--trainer.max_steps=9", "--trainer.val_check_interval=4"]
    run += ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_steps=3"]
    kill = ["--trainer.callbacks+=faults.Fault", "--trainer.callbacks.hook=on_train_batch_end"]
    kill += ["--trainer.callbacks.step=5", "--trainer.callbacks.kind=kill"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert end(start_pair(*run, folder=whole)) == [0, 0], output(whole)
    assert end(start_pair(*run, *kill, folder=broken)) == [-signal.SIGKILL] * 2, output(broken)
    assert last(broken)["global_step"] == 3
    assert end(start_pair(*run, "--ckpt_path=last", folder=broken)) == [0, 0], output(broken)
    assert last(broken)["global_step"] == last(whole)["global_step"] == 9
    for name, tensor in last(whole)["state_dict"].items():
        assert torch.equal(last(broken)["state_dict"][name], tensor), name


def test_two_processes_log_at_every_interval(tmp_path):
    """Lightning refuses a sync that differs between the steps that are logged and the others."""
    folder = tmp_path / "run"
    logged = ["--trainer.logger=CSVLogger", "--trainer.log_every_n_steps=2", "--trainer.callbacks+=TaskThroughput"]
    processes = start_pair("--trainer.max_steps=7", "--trainer.val_check_interval=3", *logged, folder=folder)
    assert end(processes) == [0, 0], output(folder)
    (path,) = folder.rglob("metrics.csv")
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert [line["step"] for line in lines if line["train/outer_loss"]] == ["1", "3", "5"]
    assert [line["step"] for line in lines if line["system/tasks_per_second"]] == ["1", "3", "5"]


def test_signal_to_one_of_two_processes_stops_both(tmp_path):
    folder = tmp_path / "run"
    diary = ["--trainer.callbacks+=faults.Diary", f"--trainer.callbacks.path={tmp_path / 'diary'}"]
    processes = start_pair("--trainer.max_steps=1000000", "--trainer.limit_val_batches=0", *diary, folder=folder)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "diary").exists() and '"step": 3' in (tmp_path / "diary").read_text()):
        assert time.monotonic() < deadline, output(folder)
        time.sleep(0.05)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert end(processes) == [143, 143], output(folder)
    assert "Traceback" not in output(folder) and f"stopped by SIGTERM after step {last(folder)['global_step']}" in output(folder)


def test_train_py_starts_its_own_processes(tmp_path):
    folder = tmp_path / "run"
    command = [*RUN, "--trainer.max_steps=3", "--trainer.val_check_interval=2", f"--trainer.default_root_dir={folder}"]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *command], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "leaked" not in done.stderr
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (folder / "config.yaml").exists() and not (tmp_path / "runs").exists()
    results = json.loads((folder / "results.json").read_text())
    assert (results["num_episodes"], results["global_step"]) == (8, 2)
    assert done.stdout.count("results.json") == 1  # one process speaks
