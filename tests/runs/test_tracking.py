"""Offline W&B runs, read back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import QUIET, SINUSOID, train

from app.runs.run import read_checkpoint
from app.runs.tracking import logged_in

LOGGED = [option for option in QUIET if "logger" not in option]
OPTIONS = [*SINUSOID, *LOGGED, "--model.inner_lr=0.01", "--trainer.log_every_n_steps=1"]


def records(piece: Path) -> list[dict]:
    """What an offline run wrote."""
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run([wandb, "leet", "inspect", "--json", piece], capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of 4 steps that was resumed to 6, after it had logged more than its checkpoint holds."""
    import wandb

    path = tmp_path_factory.mktemp("tracking") / "run"
    root = f"--trainer.default_root_dir={path}"
    assert train("fit", *OPTIONS, root, "--trainer.max_steps=4", "--trainer.val_check_interval=2").status == 0
    wandb.finish()
    first = (path / "checkpoints" / "best.ckpt").read_bytes()
    best = read_checkpoint(path / "checkpoints" / "best.ckpt")
    (path / "checkpoints" / "last.ckpt").write_bytes(first)
    assert best["global_step"] in (2, 4)
    assert train("fit", *OPTIONS, root, "--trainer.max_steps=6", "--trainer.val_check_interval=2", "--ckpt_path=last").status == 0
    wandb.finish()
    return path


def test_a_resumed_run_keeps_its_id(run):
    pieces = sorted((run / "wandb").glob("offline-run-*"))
    assert len(pieces) == 2
    assert {piece.name.rsplit("-", 1)[1] for piece in pieces} == {read_checkpoint(run / "checkpoints" / "last.ckpt")["run_id"]}


def test_no_step_is_logged_twice(run):
    steps = []
    for piece in sorted((run / "wandb").glob("offline-run-*")):
        for record in records(piece):
            row = record.get("history", {}).get("item", {})
            if "train/outer_loss" in row:
                steps.append(int(row["trainer/global_step"]))
    assert steps == sorted(set(steps)) == list(range(6))


def test_config_commit_and_data_are_in_the_run(run):
    text = json.dumps(records(sorted((run / "wandb").glob("offline-run-*"))[0]))
    for word in ("git_commit", "data_manifest_hash", "inner_lr", "val/mse"):
        assert word in text


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """This process is what wandb's agent started for a run of a sweep over methods and seeds."""
    import wandb

    chosen = {"wandb_version": 1, "model": {"value": "MAML"}, "seed_everything": {"value": 3}}
    (tmp_path / "chosen.yaml").write_text(json.dumps(chosen))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "chosen.yaml"))
    wandb.teardown()  # wandb reads the environment once
    yield
    wandb.teardown()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # wandb leaves what the sweep chose open
def test_the_run_of_a_sweep_keeps_the_config_beside_what_the_sweep_chose(sweep, tmp_path):
    import wandb

    options = ["--model=MAML", *OPTIONS, "--seed_everything=3", "--trainer.max_steps=1"]
    outcome = train("fit", *options, f"--trainer.default_root_dir={tmp_path / 'run'}")
    wandb.finish()
    assert outcome.status == 0 and "locked" not in outcome.err, outcome.err
    (piece,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    config = {}
    for record in records(piece):
        config |= record.get("run", record).get("config", {}).get("update", {})
    assert config["model"] == "MAML" and config["seed_everything"] == 3
    assert (
        config["model.class_path"] == "app.algorithms.optimisation_based.maml.MAML" and config["model.init_args.inner_lr"] == 0.01
    )
    assert config["data"]["class_path"] == "datamodules.sinusoid.Sinusoid"  # a section that no sweep holds


def test_a_login_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    assert not logged_in()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()
