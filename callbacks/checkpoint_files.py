"""How checkpoints get to the disk: whole, and while training goes on."""

import os
import time
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from app.errors import InputError
from app.runs.background import Background
from app.torch_internals import tree_flatten


class CannotWrite(InputError):
    """A checkpoint could not be written."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk and renames: a file by its final name is whole, whatever happens."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        path = Path(path)
        beside = path.with_name(f".{path.name}.part")  # what a kill leaves of it, the next write replaces
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            kept = "the checkpoint that was there before is kept" if path.exists() else "there was none before"
            raise CannotWrite(f"cannot write {path} ({reason}); {kept}: free space, then resume with --ckpt_path last") from error
        finally:
            with suppress(OSError):
                beside.unlink()


class BackgroundCheckpointIO(AtomicCheckpointIO):
    """Writes copies in a thread of its own, one file at a time; a save waits only for the one before it to the same path.

    Attributes:
        seconds: that the last write took.
    """

    def __init__(self):
        super().__init__()
        self.seconds = 0.0
        self._background = Background()
        self._last_to: dict[Path, Future] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        path = Path(path)
        if path in self._last_to:
            self._last_to[path].exception()
        self._background.raise_failure()
        self._last_to[path] = self._background.do(self._write, copied(checkpoint), path)

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        start = time.monotonic()
        super().save_checkpoint(checkpoint, path)
        self.seconds = time.monotonic() - start

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        self._background.do(super().remove_checkpoint, path)  # after the one that takes its place

    def raise_failure(self) -> None:
        """Raises a CannotWrite where a write had failed, once."""
        self._background.raise_failure()

    def wait(self) -> None:
        """Returns when all is written.

        Raises:
            CannotWrite: something was not, and nobody was told.
        """
        self._background.wait()

    def teardown(self) -> None:
        with suppress(CannotWrite):  # of a run that ends by another exception
            self.wait()


def writer_of(trainer: Trainer) -> BackgroundCheckpointIO | None:
    """What writes the checkpoints of a run; null where they are written as they are saved."""
    writer = trainer.strategy.checkpoint_io
    return writer if isinstance(writer, BackgroundCheckpointIO) else None


def copied(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same values, on the CPU and apart from those that training goes on to change."""
    tensors = (leaf for leaf in tree_flatten(checkpoint)[0] if isinstance(leaf, Tensor) and leaf.device.type != "cpu")
    return deepcopy(checkpoint, {id(tensor): tensor.detach().cpu() for tensor in tensors})
