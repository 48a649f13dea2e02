"""A run goes on where it lies, with what it was trained with, one process at a time; nothing that it recorded is lost."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.command_line import QUIET, SINUSOID, train

from app.errors import InputError
from app.runs.fork import set_aside
from app.runs.run import read_checkpoint
from app.runs.run_lock import RunLock
from app.runs.session import new_run_id

STEPS = [*SINUSOID, *QUIET, "--trainer.log_every_n_steps=1", "--trainer.val_check_interval=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of 4 steps."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert train("fit", *STEPS, "--trainer.max_steps=4", f"--trainer.default_root_dir={folder}").status == 0
    return folder


@pytest.fixture
def run_dir(finished, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "copy")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def resumed(folder: Path, *options: str, steps: int = 6, checkpoint: str = "last"):
    config = ["--config", folder / "config.yaml", f"--ckpt_path={checkpoint}", f"--trainer.max_steps={steps}"]
    return train("fit", *config, *options)


def test_a_copied_run_goes_on_in_its_own_folder(finished, run_dir):
    before = contents(finished)
    assert resumed(run_dir).status == 0
    assert contents(finished) == before
    assert read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["global_step"] == 6
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["trainer"]["default_root_dir"] == str(run_dir)
    moved = run_dir.rename(run_dir.with_name("moved"))
    assert resumed(moved, steps=8).status == 0 and not run_dir.exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model.optimizer=SGD", ("--model.optimizer is SGD", "trained with Adam")),
        ("--model.optimizer.amsgrad=true", ("--model.optimizer.amsgrad is True", "trained with False")),
        ("--data.shots=3", ("--data.shots is 3",)),
        ("--data.meta_batch_size=3", ("--data.meta_batch_size is 3",)),
        ("--seed_everything=7", ("--seed_everything is 7", "trained with 0")),
        ("--trainer.precision=64-true", ("--trainer.precision is 64-true",)),
        ("--model.lr_scheduler=torch.optim.lr_scheduler.ConstantLR", ("--model.lr_scheduler is ConstantLR", "trained with null")),
    ],
)
def test_what_cannot_be_resumed_is_refused_by_name(option, words, run_dir):
    before = contents(run_dir)
    run = resumed(run_dir, option)
    assert run.status == 1 and all(word in run.err.splitlines()[-1] for word in words)
    assert contents(run_dir) == before


def test_what_does_not_change_the_training_may_differ(run_dir):
    options = [
        "--model.tasks_per_chunk=1",
        "--data.test_episodes=5",
        "--model.eval_inner_steps=2",
        "--trainer.log_every_n_steps=2",
    ]
    assert resumed(run_dir, *options).status == 0


def test_other_rates_count_from_here_on(run_dir):
    run = resumed(run_dir, "--model.optimizer.lr=0.5", "--model.optimizer.betas=[0.8,0.9]")
    assert run.status == 0 and "from step 4 on --model.optimizer.lr is 0.5; it was 0.001" in run.out
    [group] = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert group["lr"] == 0.5 and tuple(group["betas"]) == (0.8, 0.9) and group["eps"] == 1e-8


def test_a_schedule_goes_on_from_another_rate(tmp_path):
    schedule = ["--model.lr_scheduler=torch.optim.lr_scheduler.StepLR", "--model.lr_scheduler.step_size=2"]
    assert train("fit", *STEPS, *schedule, "--trainer.max_steps=3", f"--trainer.default_root_dir={tmp_path}").status == 0
    assert resumed(tmp_path, "--model.optimizer.lr=0.5", steps=5).status == 0
    [group] = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert group["initial_lr"] == 0.5 and abs(group["lr"] - 0.5 * 0.1**2) < 1e-12


def test_a_fit_that_goes_back_sets_aside_what_came_after(run_dir):
    early = run_dir / "early.ckpt"
    shutil.copy(run_dir / "checkpoints" / "last.ckpt", early)
    assert resumed(run_dir, steps=8).status == 0
    (run_dir / "pictures").mkdir()
    for step in (4, 8):
        (run_dir / "pictures" / f"val_curve_{step:07d}.png").write_bytes(b"x")
    before = contents(run_dir)
    run = resumed(run_dir, checkpoint=str(early))
    assert run.status == 0 and "set_aside" in run.out
    aside = contents(run_dir / "set_aside" / "1")
    for name in ("metrics.jsonl", "checkpoints/last.ckpt", "pictures/val_curve_0000008.png"):
        assert aside[name] == before[name]
    assert [path.name for path in (run_dir / "pictures").iterdir()] == ["val_curve_0000004.png"]
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and max(steps) == 5
    old, new = (read_checkpoint(path) for path in (early, run_dir / "checkpoints" / "last.ckpt"))
    assert new["parent_id"] == old["run_id"] != new["run_id"]


def test_aside_is_numbered(run_dir):
    assert [set_aside(run_dir, 2).name for _ in range(2)] == ["1", "2"]
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 1


def test_a_second_fit_in_the_folder_is_refused(run_dir):
    lock = RunLock(run_dir)
    lock.acquire()
    before = contents(run_dir)
    run = resumed(run_dir)
    assert run.status == 1 and f"is in use by process {os.getpid()} on" in run.err and run.err.count("\n") == 1
    assert contents(run_dir) == before
    lock.release()
    assert resumed(run_dir).status == 0 and not (run_dir / ".in_use.json").exists()


def test_a_lock_that_a_dead_process_left_is_taken_over(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".in_use.json").write_text('{"process": 1}')
    lock = RunLock(tmp_path)
    lock.acquire()
    with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        RunLock(tmp_path).acquire()
    lock.release()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--trainer.default_root_dir .* cannot be written"):
        RunLock(tmp_path / "file" / "run").acquire()


def test_no_reader_of_yaml_takes_the_id_of_a_run_for_a_number():
    ids = {new_run_id() for _ in range(1000)}
    assert len(ids) == 1000 and all(yaml.safe_load(text) == text and text.isalpha() for text in ids)
