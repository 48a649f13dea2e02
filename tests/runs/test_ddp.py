"""Two processes do what one does."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, ROOT, SINUSOID, fork, train
from helpers.ddp_worker import cases, run, torchrun, work
from helpers.processes import RUN, end, free_port, last, output, start_pair

CASES = {case.name: case for case in cases()}
WEIGHTS = {"64-true": 1e-10, "32-true": 5e-5}  # relative to the norm of a tensor
SCORES = {"64-true": 1e-12, "32-true": 1e-4}


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


pytestmark = pytest.mark.slow  # every test starts processes, or reads what they left


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
    if "calibration" in one["evaluation"]:
        calibrations = [of["evaluation"]["calibration"] for of in (one, two, other)]
        assert calibrations[1] == calibrations[2] and {part["num_queries"] for part in calibrations} == {54}
        assert calibrations[1]["error"] == pytest.approx(calibrations[0]["error"], abs=SCORES["32-true"])
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


WHOLE = [
    "--trainer.max_steps=9",
    "--trainer.val_check_interval=4",
    "--trainer.callbacks+=LastCheckpoint",
    "--trainer.callbacks.every_steps=3",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing disturbed, and that logged."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    logged = ["--trainer.logger=CSVLogger", "--trainer.log_every_n_steps=2", "--trainer.callbacks+=TaskThroughput"]
    assert end(start_pair(*WHOLE, *logged, folder=folder)) == [0, 0], output(folder)
    return folder


def test_killed_and_resumed(whole, tmp_path):
    kill = ["--trainer.callbacks+=helpers.faults.Fault", "--trainer.callbacks.hook=on_train_batch_end"]
    kill += ["--trainer.callbacks.step=5", "--trainer.callbacks.kind=kill"]
    broken = tmp_path / "broken"
    assert end(start_pair(*WHOLE, *kill, folder=broken)) == [-signal.SIGKILL] * 2, output(broken)
    assert last(broken)["global_step"] == 3
    assert end(start_pair(*WHOLE, "--ckpt_path=last", folder=broken)) == [0, 0], output(broken)
    assert last(broken)["global_step"] == last(whole)["global_step"] == 9
    for name, tensor in last(whole)["state_dict"].items():
        assert torch.equal(last(broken)["state_dict"][name], tensor), name


def test_two_processes_log_at_every_interval(whole):
    """Lightning refuses a sync that differs between the steps that are logged and the others."""
    (path,) = whole.rglob("metrics.csv")
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert [line["step"] for line in lines if line["train/outer_loss"]] == ["1", "3", "5", "7"]
    assert [line["step"] for line in lines if line["system/tasks_per_second"]] == ["1", "3", "5", "7"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_job(rank, tmp_path):
    """The other one does not find out by itself: it hangs, as in a collective operation of NCCL."""
    folder = tmp_path / "run"
    run = ["--trainer.max_steps=5", "--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_steps=1"]
    fault = [
        "--trainer.callbacks+=helpers.faults.Fault",
        "--trainer.callbacks.hook=on_before_backward",
        "--trainer.callbacks.step=3",
    ]
    kill = [*fault, "--trainer.callbacks.kind=kill", f"--trainer.callbacks.rank={rank}"]
    hang = [*fault, "--trainer.callbacks.kind=hang", f"--trainer.callbacks.rank={1 - rank}"]
    start = time.monotonic()
    statuses = end(start_pair(*run, *kill, *hang, folder=folder))
    assert time.monotonic() - start < 60, output(folder)
    assert (statuses[rank], statuses[1 - rank]) == (-signal.SIGKILL, 1), output(folder)
    said = folder.with_suffix(f".{1 - rank}").read_text()
    assert f"error: rank {rank} of 2 (process " in said and "has died" in said and "--ckpt_path last" in said
    assert last(folder)["global_step"] in (2, 3)  # rank 0 may not have come to step 3's, or be writing it
    if rank == 0:  # it goes on
        assert end(start_pair(*run, "--ckpt_path=last", folder=folder)) == [0, 0], output(folder)
        assert last(folder)["global_step"] == 5


def test_a_process_that_fails_alone_ends_the_job(tmp_path):
    folder = tmp_path / "run"
    fault = [
        "--trainer.callbacks+=helpers.faults.Fault",
        "--trainer.callbacks.hook=on_before_backward",
        "--trainer.callbacks.step=1",
    ]
    fail = [*fault, "--trainer.callbacks.kind=exception", "--trainer.callbacks.rank=1"]
    hang = [*fault, "--trainer.callbacks.kind=hang", "--trainer.callbacks.rank=0"]
    grace = ["--trainer.callbacks+=RankWatch", "--trainer.callbacks.grace=1"]
    assert end(start_pair("--trainer.max_steps=5", *fail, *hang, *grace, folder=folder)) == [1, 1], output(folder)
    assert "a fault in a callback" in output(folder) and "error: rank 1 of 2 (process " in output(folder)


def test_two_nodes_of_torchrun(tmp_path):
    """Together they are one process."""
    steps = ["--trainer.max_steps=3", "--trainer.precision=64-true", "--trainer.limit_val_batches=0"]
    run = [*SINUSOID, *QUIET, "--model.inner_lr=0.01", *steps]
    launch = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    fit = [str(ROOT / "train.py"), "fit", *run, f"--trainer.default_root_dir={tmp_path / 'nodes'}"]
    said = [tmp_path / f"{number}.log" for number in range(2)]
    nodes = [fork(torchrun, [*launch, f"--node_rank={number}", *fit], said[number]) for number in range(2)]
    assert train("fit", *run, f"--trainer.default_root_dir={tmp_path / 'one'}").status == 0
    assert end(nodes) == [0, 0], [log.read_text() for log in said]
    assert last(tmp_path / "nodes")["global_step"] == 3
    for name, expected in last(tmp_path / "one")["state_dict"].items():
        tensor = last(tmp_path / "nodes")["state_dict"][name]
        assert (tensor - expected).norm() <= WEIGHTS["64-true"] * expected.norm(), name


TORCHRUN = {"TORCHELASTIC_RUN_ID": "job", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2", "RANK": "0"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize("job", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_processes_from_outside_need_a_folder(job, monkeypatch):
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    refused = train("fit", *SINUSOID, *QUIET)
    assert refused.status == 1
    assert "2 nodes" in refused.err and "--trainer.default_root_dir" in refused.err and len(refused.err.splitlines()) == 1


def test_restarts_on_several_nodes_are_refused(monkeypatch, tmp_path):
    for name, value in (TORCHRUN | {"TORCHELASTIC_MAX_RESTARTS": "3"}).items():
        monkeypatch.setenv(name, value)
    refused = train("fit", *SINUSOID, *QUIET, f"--trainer.default_root_dir={tmp_path}")
    assert refused.status == 1 and "--max_restarts 3" in refused.err and len(refused.err.splitlines()) == 1


def test_a_job_that_comes_back_goes_on(monkeypatch, tmp_path):
    run = ["fit", *SINUSOID, *QUIET, "--model.inner_lr=0.01", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert train(*run, "--trainer.max_steps=2").status == 0
    assert train(*run, "--trainer.max_steps=3").status == 1
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert train(*run, "--trainer.max_steps=3").status == 0
    assert last(tmp_path / "run")["global_step"] == 3


def test_processes_wait_for_each_other_seldom(tmp_path):
    """Beside the sum of the gradients: for what is logged, and ever more seldom for clock and signals, as steps are quick."""
    folder = tmp_path / "run"
    options = ["--trainer.max_steps=40", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=10"]
    options += ["--trainer.callbacks+=helpers.faults.CountCollectives", f"--trainer.callbacks.path={tmp_path / 'counts'}"]
    options += ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_seconds=1000"]
    options += ["--trainer.max_time=00:10:00:00", "--model.lr_scheduler=LinearDecay"]
    assert end(start_pair(*options, folder=folder)) == [0, 0], output(folder)
    for rank in range(2):
        counts = json.loads((tmp_path / f"counts.{rank}").read_text())
        logged, signals, schedule = (10, 20, 30, 40), (1, 3, 7, 15, 31), (1, 3, 7, 15, 31)
        assert counts == {"all_reduce": len([*logged, *signals, *schedule])}


def test_time_ends_both_processes_together(tmp_path):
    folder = tmp_path / "run"
    options = ["--trainer.max_steps=1000000", "--trainer.max_time=00:00:00:02", "--trainer.limit_val_batches=1"]
    assert end(start_pair(*options, "--trainer.val_check_interval=1000000", folder=folder)) == [0, 0], output(folder)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}  # it was validated at its end
    assert 0 < last(folder)["global_step"] < 1000000


def test_signal_to_one_of_two_processes_stops_both(tmp_path):
    folder = tmp_path / "run"
    diary = ["--trainer.callbacks+=helpers.faults.Diary", f"--trainer.callbacks.path={tmp_path / 'diary'}"]
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
