"""Offline W&B runs, read back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import QUIET, SINUSOID, train

from app.errors import InputError
from app.runs.run import read_checkpoint
from app.runs.tracking import RunLogger, logged_in

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
    assert {piece.name.split("-")[3] for piece in pieces} == {read_checkpoint(run / "checkpoints" / "last.ckpt")["run_id"]}


@pytest.mark.slow
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


def test_wandbs_own_settings_count_where_the_command_line_says_nothing(tmp_path, monkeypatch):
    own = {"PROJECT": "birds", "ENTITY": "team", "NAME": "first", "TAGS": "5way,new", "DIR": str(tmp_path / "elsewhere")}
    for name, value in own.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logger = RunLogger(save_dir=str(tmp_path))
    settings = (logger.name, logger._wandb_init["entity"], logger._wandb_init["name"], logger._wandb_init["tags"])
    assert settings == ("birds", "team", "first", ["5way", "new"]) and logger.save_dir == own["DIR"]
    logger = RunLogger(project="other", entity="me", name="second", tags=["x"])
    settings = (logger.name, logger._wandb_init["entity"], logger._wandb_init["name"], logger._wandb_init["tags"])
    assert settings == ("other", "me", "second", ["x"])


@pytest.mark.parametrize(
    ("variable", "value", "is_off", "offline"),
    [
        ("MODE", "disabled", True, True),
        ("DISABLED", "true", True, True),
        ("MODE", "dryrun", False, True),
        ("MODE", "online", False, False),
    ],
)
def test_wandb_is_switched_off_or_offline_in_its_own_ways(variable, value, is_off, offline, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv(f"WANDB_{variable}", value)
    logger = RunLogger()
    assert (logger.is_off, logger.offline) == (is_off, offline)


def test_nothing_is_written_where_wandb_is_off(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    run = train("fit", *OPTIONS, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1")
    assert run.status == 0 and "switched off" in run.out and not (tmp_path / "wandb").exists()
    assert "W&B (offline)" not in run.out and (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"project": "team/project"}, "--trainer.logger.entity"),
        ({"tags": ["x" * 78]}, "78 characters"),
        ({"id": "a/1"}, "WANDB_RUN_ID"),
    ],
)
def test_names_that_wandb_would_refuse(options, words):
    with pytest.raises(InputError, match=words):
        RunLogger(**options)


def test_a_run_id_of_the_environment_that_wandb_would_refuse(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "sweep/1")
    with pytest.raises(InputError, match=r"WANDB_\.\.\. cannot be read by W&B \(Run ID"):
        RunLogger()


def test_every_test_of_a_run_is_logged(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_metrics", lambda self, metrics, step: logged.append(metrics))
    for score in (0.5, 0.25):
        RunLogger(save_dir=str(tmp_path), id="one").log_metrics({"test/accuracy": score, "val/accuracy": score}, 0)
    assert logged == [{"test/accuracy": 0.5, "val/accuracy": 0.5}, {"test/accuracy": 0.25}]
