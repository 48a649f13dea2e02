"""Whatever a person gets wrong: three lines at most, with the option, what was found and what to do; nothing is written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.command_line import QUIET, ROOT, SINUSOID, Outcome, train
from helpers.small import Blots
from lightning.pytorch.accelerators import MPSAccelerator

FIT = ["fit", *SINUSOID, *QUIET, "--model.inner_lr=0.01", "--trainer.max_steps=4", "--trainer.val_check_interval=2"]
CSV = ["fit", "--data=CsvRegression", "--data.path=t.csv", "--data.task=t", "--data.x=x", "--data.y=y", *QUIET]

WRONG = {
    "model": ([*FIT, "--model=MMAL"], ["--model MMAL", "did you mean MAML", "MAML, ", "MetaSGD, ", "Reptile"]),
    "data": ([*FIT, "--data", "Sinsoid"], ["--data Sinsoid", "did you mean Sinusoid", "Glyphs, "]),
    "base of models": (["fit", "--model=DeployedAlgorithm", *QUIET], ["--model DeployedAlgorithm", "others", "GeMCL, ", "OML, "]),
    "base of data": (["fit", "--data=EpisodicDataModule", *QUIET], ["--data EpisodicDataModule", "not say draw, ", "Glyphs, "]),
    "optimizer": ([*FIT, "--model.optimizer=Adem"], ["--model.optimizer Adem", "did you mean Adam"]),
    "backbone": ([*FIT, "--model.backbone=Conv5"], ["--model.backbone Conv5", "did you mean Conv4"]),
    "callback": ([*FIT, "--trainer.callbacks+=EpisodeGalery"], ["EpisodeGalery", "did you mean EpisodeGallery"]),
    "option": ([*FIT, "--optimiser=Adam"], ["--optimiser", "--model.optimizer"]),
    "option of the model": ([*FIT, "--model.inner_step=3"], ["--model.inner_step\n", "--model.inner_steps"]),
    "option of another model": ([*FIT, "--model.step_size_range=[1,1]"], ["--model.step_size_range", "MetaSGD", "not of MAML"]),
    "option of the optimizer": ([*FIT, "--model.optimizer=SGD", "--model.optimizer.momentun=1"], ["momentun\n", "r.momentum"]),
    "option of no class": ([*FIT, "--model.backbone.width=3"], ["--model.backbone.width", "Conv4 or Identity or MLP"]),
    "verb": (["tset", *FIT[1:]], ["tset", "fit, validate, test"]),
    "type": ([*FIT, "--model.inner_steps=three"], ["--model.inner_steps is three", "whole number"]),
    "choice": ([*FIT, "--model.adapted=hed"], ["--model.adapted is hed", "all, head, body"]),
    "several words": ([*FIT, "--data.queries", "5", "6"], ["--data.queries is 5 6", "a whole number"]),
    "one of two": ([*CSV, "--data.num_context=7"], ["--data.num_context is 7", "two values", "[3,5]"]),
    "words of a path": ([*CSV, "--data.path", "my", "table.csv"], ["--data.path is my table.csv", "quotes"]),
    "no value": ([*FIT, "--model.first_order"], ["--model.first_order has no value"]),
    "no seed": ([*FIT, "--seed_everything=null"], ["--seed_everything is null", "a whole number"]),
    "no group": ([*FIT, "--trainer=fast"], ["--trainer is fast", "YAML file"]),
    "another class": ([*FIT, "--model=datamodules.sinusoid.Sinusoid"], ["--model datamodules.sinusoid.Sinusoid is no Learner"]),
    "option of no section": ([*FIT, "--model.inner_lr.x=3"], ["--model.inner_lr.x\n"]),
    "no path": (["fit", "--data=ImageFolder", *QUIET], ["--data.path is missing"]),
    "no steps": ([*FIT, "--model.inner_steps=0"], ["--model.inner_steps is 0", "at least 1"]),
    "negative steps": ([*FIT, "--model.inner_steps=-2"], ["--model.inner_steps is -2", "at least 1"]),
    "no steps at evaluation": ([*FIT, "--model.eval_inner_steps=0"], ["--model.eval_inner_steps is 0", "at least 1"]),
    "lr is text": ([*FIT, "--model.optimizer=Adam", "--model.optimizer.lr=nan"], ["--model.optimizer.lr is nan", "a number"]),
    "lr is NaN": ([*FIT, "--model.optimizer=SGD", "--model.optimizer.lr=.nan"], ["--model.optimizer", "nan"]),
    "inner_lr is NaN": ([*FIT, "--model.inner_lr=.nan"], ["--model.inner_lr is nan", "finite"]),
    "seed": ([*FIT, "--seed_everything=-1"], ["--seed_everything is -1", "0 to 4294967295"]),
    "loss": ([*FIT, "--model.outer_loss=cross_entropy"], ["--model.outer_loss cross_entropy", "regression", "mse"]),
    "no tasks": ([*FIT, "--data.meta_batch_size=0"], ["--data.meta_batch_size is 0", "at least 1"]),
    "processes": (
        [*FIT, "--trainer.devices=3", "--trainer.strategy=ddp"],
        ["--data.meta_batch_size 4", "3 processes", "6", "--trainer.devices"],
    ),
    "float16": ([*FIT, "--trainer.precision=16-mixed"], ["--trainer.precision 16-mixed", "bf16-mixed"]),
    "precision": ([*FIT, "--trainer.precision=12"], ["--trainer.precision is 12", "bf16-mixed"]),
    "devices": ([*FIT, "--trainer.devices=two"], ["--trainer", "devices"]),
    "a package that is absent": (
        [*(option for option in FIT if "accelerator" not in option), "--trainer.accelerator=tpu"],
        ["--trainer", "torch_xla", "pip install"],
    ),
    "accumulation": (
        [*FIT, "--trainer.accumulate_grad_batches=2"],
        ["--trainer.accumulate_grad_batches 2", "--data.meta_batch_size", "--model.tasks_per_chunk"],
    ),
    "config": (["fit", "--config=omniglot_maml.yaml", *QUIET], ["--config omniglot_maml.yaml", "omniglot_maml_5w1s.yaml"]),
    "test without a checkpoint": (["test", *FIT[1:]], ["test needs --ckpt_path", "--trainer.default_root_dir"]),
    "validate without a checkpoint": (["validate", *FIT[1:]], ["validate needs --ckpt_path"]),
    "last of none": ([*FIT, "--ckpt_path=last"], ["--ckpt_path last", "last.ckpt", "leave --ckpt_path out"]),
    "a checkpoint that is absent": ([*FIT, "--ckpt_path=lost.ckpt"], ["--ckpt_path lost.ckpt", "does not exist"]),
    "a score that is unknown": (
        [*FIT, "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
        ["--trainer.callbacks.monitor is val_loss for EarlyStopping", "train/outer_loss", "val/mse, ", "val/mse_before"],
    ),
    "a score of a stream": (
        [
            "fit",
            "--data=ClassStream",
            "--data.train_images=3",
            "--data.test_images=1",
            *QUIET,
            "--trainer.callbacks=ModelCheckpoint",
            "--trainer.callbacks.monitor=val/loss",
        ],
        ["--trainer.callbacks.monitor is val/loss for ModelCheckpoint", "train/loss"],
    ),
    "no pictures": (["fit", "--data=ImageFolder", "--data.path=lost", *QUIET], ["--data.path lost", "<class>/<picture>"]),
}


def assert_clear(outcome: Outcome, *words: str) -> None:
    assert outcome.status in (1, 2)
    assert len(outcome.err.splitlines()) <= 3 and outcome.err.startswith("error: "), outcome.err
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize("args, words", WRONG.values(), ids=WRONG)
def test_a_wrong_command_line(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_clear(train(*args, "--trainer.default_root_dir=run"), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_logged(tmp_path):
    stop = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/mse_before"]
    assert train(*FIT, *stop, f"--trainer.default_root_dir={tmp_path}").status == 0


def test_tasks_that_slurm_has_not_dealt_to_machines(tmp_path, monkeypatch):
    for name, value in {"NTASKS": "4", "NNODES": "2", "PROCID": "0", "JOB_NAME": "job"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    outcome = train(*FIT, f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert_clear(outcome, "SLURM started 4 tasks by --ntasks", "--nodes=2 --ntasks-per-node=2")
    assert not list(tmp_path.iterdir())


def test_no_folder_of_a_run_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_clear(train(*FIT, "--model.inner_steps=0"), "--model.inner_steps")
    assert_clear(train(*FIT, "--trainer.devices=two"), "--trainer")
    assert list(tmp_path.glob("runs/*/*")) == []


def test_ways_and_images(tmp_path, monkeypatch):
    """On Blots, by its full name: 40 classes of 8 images."""
    data = ["fit", f"--data={Blots.__module__}.Blots", *QUIET, f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert_clear(train(*data, "--data.ways=41"), "--data.ways 41", "Blots", "40")
    assert_clear(train(*data, "--data.train_ways=41", "--data.ways=3"), "--data.train_ways 41")
    images = train(*data, "--data.shots=5", "--data.queries=4")
    assert_clear(images, "--data.shots 5", "--data.queries 4", "9", "8")
    assert list(tmp_path.iterdir()) == []


def test_no_omniglot(tmp_path, monkeypatch):
    def download_url(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    folders = [f"--data.data_dir={tmp_path / 'data'}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    outcome = train("fit", "--data=Omniglot", *folders, *QUIET)
    assert_clear(outcome, f"--data.data_dir {tmp_path / 'data'}", "images_background.zip", "put both into")
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "not YAML": ("model: [1, 2\n", ["line", "correct it"]),
    "a list": ("- model\n", ["list", "trainer: {max_steps"]),
    "empty": ("", ["is empty"]),
    "not text": ("\x00\x01", ["cannot be read"]),
    "unknown section": ("modle:\n  class_path: MAML\n", ["--modle\n", "--model"]),
    "unknown option": ("trainer:\n  max_step: 3\n", ["--trainer.max_step\n", "--trainer.max_steps"]),
    "a list for a class": ("data:\n  class_path: [1]\n", ["class_path is", "the name of a class"]),
    "a list for options": ("model:\n  class_path: MAML\n  init_args: [1]\n", ["MAML is", "a mapping"]),
    "a list for a group": ("trainer: [1]\n", ["--trainer is [1]", "by their names"]),
    "option of the model": ("model:\n  class_path: MAML\n  init_args:\n    inner_stps: 3\n", ["inner_stps\n", "inner_steps"]),
}


def test_a_logger_whose_package_is_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.runs.tracking.find_spec", lambda _: None)
    outcome = train(*(option for option in FIT if "logger" not in option), "--trainer.logger", "TensorBoardLogger")
    assert_clear(outcome, "--trainer.logger TensorBoardLogger", "uv pip install tensorboard", "CSVLogger")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content, words", BROKEN.values(), ids=BROKEN)
def test_a_broken_config(content, words, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    run_dir = f"--trainer.default_root_dir={tmp_path / 'run'}"
    assert_clear(train("fit", "--config", path, "--data=Sinusoid", *QUIET, run_dir), *words)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of MAML of 4 steps."""
    folder = tmp_path_factory.mktemp("run")
    assert train(*FIT, f"--trainer.default_root_dir={folder}").status == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_checkpoint_that_does_not_fit(verb, run, tmp_path):
    last = run / "checkpoints" / "last.ckpt"
    args = [verb, *FIT[1:], "--trainer.max_steps=9", f"--trainer.default_root_dir={tmp_path}"]
    for model, words in (
        (["--model=Reptile"], ["MAML", "Reptile"]),
        (["--model.backbone=MLP", "--model.backbone.hidden_sizes=[8,8]"], ["net.body.1.weight", "(40, 1)", "(8, 1)"]),
    ):
        assert_clear(train(*args, *model, f"--ckpt_path={last}"), str(last), "config.yaml", *words)
    truncated = tmp_path / "truncated.ckpt"
    truncated.write_bytes(last.read_bytes()[:5000])
    assert_clear(train(*args, f"--ckpt_path={truncated}"), f"{truncated} (5000 bytes)", "last.ckpt")
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    assert_clear(train(*args, f"--ckpt_path={foreign}"), str(foreign), "not a checkpoint of this application")
    assert sorted(tmp_path.iterdir()) == [foreign, truncated]


def test_a_loss_that_is_not_finite(tmp_path):
    learning_rate = ["--model.optimizer=SGD", "--model.optimizer.lr=1e30", f"--trainer.default_root_dir={tmp_path}"]
    assert_clear(train(*FIT, *learning_rate), "at step 1", "last.ckpt", "--model.optimizer.lr", "gradient_clip_val")
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_a_gpu_without_float64(tmp_path, monkeypatch):
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: True)
    run_dir = f"--trainer.default_root_dir={tmp_path}"
    for asked in ("gpu", "mps"):
        wrong = train(*FIT, run_dir, f"--trainer.accelerator={asked}")
        assert_clear(wrong, f"--trainer.accelerator {asked}", "Apple's GPUs have no float64", "cpu")
    assert train(*FIT, run_dir, "--trainer.accelerator=auto").status == 0
    assert json.loads((tmp_path / "environment.json").read_text())["device"] == "cpu"


def test_a_folder_that_cannot_be_written(run, tmp_path, monkeypatch):
    """Said before anything is computed: of the folder that was given, and of a new one below the working directory."""
    (tmp_path / "runs").touch()
    monkeypatch.chdir(tmp_path)
    last = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    for verb in (["fit"], ["validate", last], ["test", last]):
        wrong = train(verb[0], *FIT[1:], *verb[1:], "--trainer.default_root_dir=runs/x")
        assert_clear(wrong, "--trainer.default_root_dir runs/x cannot be written", "give another folder")
    assert_clear(train(*FIT), "runs/maml_sinusoid/", "cannot be made", "give --trainer.default_root_dir")


def test_a_second_fit(run):
    assert_clear(train(*FIT, f"--trainer.default_root_dir={run}"), str(run), "--ckpt_path last", "another folder")


@pytest.mark.slow
def test_as_a_person_sees_it(tmp_path):
    """In a process of its own: no warning of a library comes beside the message."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": "Sinusoid", "init_args": {"queries": 5}}}))
    command = [sys.executable, ROOT / "train.py", "fit", "--config", path, "--model=MAML", "--model.inner_lr=1e30"]
    done = subprocess.run([*command, "--trainer.accelerator=cpu"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert_clear(Outcome(done.returncode, done.stdout, done.stderr), "at step 0", "--model.inner_lr")
