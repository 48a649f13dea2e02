"""The folder of a run, and what a checkpoint says."""

import inspect
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import LightningModule

from app.errors import InputError
from app.runs.processes import Job, is_rank_zero, job_from_outside
from app.runs.run_lock import LOCK
from datamodules.base.resumable import ResumableDataModule

CHECKPOINT_FORMAT = 2  # raise it where an older checkpoint can no longer be deployed as it was meant


def new_run_dir(model: str, data: str, num_nodes: int = 1) -> Path:
    """A folder runs/<model>_<data>/<time> that did not exist; the processes that this one starts get the same one.

    Raises:
        InputError: there are processes that another one started, which cannot know it, or it cannot be made.
    """
    if "META_RUN_DIR" in os.environ:
        return Path(os.environ["META_RUN_DIR"])
    job = job_from_outside() or Job(num_nodes, int(os.environ.get("WORLD_SIZE", "1")))
    if job.nodes * job.per_node > 1:
        raise InputError(
            f"the processes that torchrun, srun or you started on {job.nodes} nodes must agree on the folder of the run; give "
            "--trainer.default_root_dir DIR, on a disk that all of them see"
        )
    stem = Path("runs") / f"{model}_{data}".lower() / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path, number = stem, 1
    while is_rank_zero():
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
            path = stem.with_name(f"{stem.name}_{number}")
        except OSError as error:
            raise InputError(
                f"the folder {stem} of a new run cannot be made ({error.strerror or error}); give --trainer.default_root_dir"
            ) from error
    os.environ["META_RUN_DIR"] = str(path)
    return path


def discard_empty_run_dir() -> None:
    """Removes the new folder of a run that failed before it wrote anything, and the folders around it that held nothing else."""
    if path := os.environ.pop("META_RUN_DIR", None):
        with suppress(OSError):  # not empty
            if os.listdir(path) == [LOCK]:
                (Path(path) / LOCK).unlink()
            for folder in (Path(path), *Path(path).parents[:2]):
                folder.rmdir()


def checkpoint_dir(run_dir: str | os.PathLike) -> Path:
    """Where the checkpoints of a run lie."""
    return Path(run_dir) / "checkpoints"


def find_checkpoint(name: str, run_dir: Path | None) -> Path:
    """The file that `--ckpt_path` means: a path, or `last` or `best` of the run.

    Raises:
        InputError: there is none.
    """
    if name not in ("last", "best"):
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"--ckpt_path {name} does not exist; give a file, or last or best with --trainer.default_root_dir DIR"
            )
        return path
    if run_dir is None:
        raise InputError(f"--ckpt_path {name} needs the run it belongs to: add --trainer.default_root_dir DIR")
    path = checkpoint_dir(run_dir) / f"{name}.ckpt"
    if not path.is_file():
        raise InputError(f"--ckpt_path {name}: there is no {path}; leave --ckpt_path out to start a new run there")
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        InputError: the file is truncated, not one of this application's, or holds what could run something.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged archive raises whatever its reader meets first
        size = path.stat().st_size
        if asked := _asks_for(path):
            raise InputError(
                f"{path} holds {asked}, and a checkpoint holds tensors and plain values alone; it was not loaded, do not trust it"
            ) from error
        raise InputError(
            f"{path} ({size} bytes) is not a whole checkpoint; use the other one beside it, best.ckpt or last.ckpt"
        ) from error
    if not isinstance(checkpoint, dict) or "algorithm" not in checkpoint:
        raise InputError(f"{path} is not a checkpoint of this application; give one that `train.py fit` wrote")
    return checkpoint


def _asks_for(path: Path) -> str | None:
    """The first thing in a file, beside tensors and plain values, that loading it would run."""
    try:
        return next(iter(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))), None)
    except Exception:  # of a file that is no whole checkpoint
        return None


def prepare_as_checkpoint(data: Namespace, checkpoint: dict[str, Any], path: Path) -> None:
    """Gives pictures the normalisation, height, width and channels that the checkpoint's network was trained on.

    Raises:
        InputError: others were asked for.
    """
    shape = checkpoint.get("task", {}).get("input_shape", ())
    arguments = inspect.signature(resolve_name(data.class_path)).parameters
    if "normalise" in data.init_args:
        data.init_args.normalise = checkpoint.get("inputs", {}).get("normalise")
    for name, wanted in zip(("channels", "image_size"), shape[:2] if len(shape) == 3 else (), strict=False):
        if name in data.init_args:
            given, default = data.init_args[name], arguments[name].default if name in arguments else None
            if given not in (None, default, wanted):
                raise InputError(f"--data.{name} is {given}, and the network of {path} was trained on {wanted}; leave it out")
            data.init_args[name] = wanted


def check_fits(checkpoint: dict[str, Any], path: Path, model: LightningModule) -> None:
    """Raises an InputError where the checkpoint is of another learner or architecture."""
    algorithm = type(model).__name__
    if checkpoint["algorithm"] != algorithm:
        raise InputError(f"{path} is of {checkpoint['algorithm']}, --model is {algorithm}; use the config.yaml of its run")
    shape = tuple(getattr(model, "input_shape", ()))
    trained_on = tuple(checkpoint.get("task", {}).get("input_shape", shape))
    if shape and shape != trained_on:
        remedy = ", or with an option image_size" if len(trained_on) == 3 else "; features are of one encoder alone"
        raise InputError(
            f"--data has inputs of shape {shape}, and the network of {path} was trained on {trained_on}; choose data of that "
            f"shape{remedy}"
        )
    saved = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            raise InputError(
                f"{path} has another architecture: {name} is {saved.get(name) or 'absent'} there, "
                f"{wanted.get(name) or 'absent'} in --model; use the config.yaml of its run"
            )


def check_encoder(checkpoint: dict[str, Any], path: Path, data: ResumableDataModule) -> None:
    """Raises an InputError where features are not those of the encoder that the checkpoint was trained with."""
    both = (checkpoint.get("inputs", {}).get("encoder") or {}, data.describe_inputs().get("encoder") or {})
    if len({tuple(encoder.get(part) for part in ("name", "size", "normalises", "dtype", "digest")) for encoder in both}) > 1:
        trained, given = (
            f"{encoder['name']} (size {encoder['size'] or 'its own'}, normalises {str(encoder['normalises']).lower()}, "
            f"{encoder['dtype']}, weights {encoder['digest'][:12]})"
            if encoder
            else "no encoder"
            for encoder in both
        )
        raise InputError(f"{path} was trained with {trained}, and --data has {given}; give the encoder of its run")


def check_data(checkpoint: dict[str, Any], path: Path, data: ResumableDataModule) -> None:
    """Raises an InputError where the checkpoint was trained on other data."""
    name = type(data).__name__
    if name not in checkpoint:
        raise InputError(f"{path} was not trained on --data {name}; use the config.yaml of its run, or leave --ckpt_path out")
    data.check_hash(checkpoint[name]["manifest_hash"])
