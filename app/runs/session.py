"""The run that a command begins, or goes on with."""

import os
import random
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from app.errors import InputError
from app.runs.fork import goes_back, set_aside
from app.runs.processes import comes_back, is_rank_zero
from app.runs.run import checkpoint_dir, find_checkpoint, new_run_dir, read_checkpoint
from app.runs.run_lock import RunLock

LETTERS = "bcdfghjkmnpqrstvwxyz"  # of which no word and no number is made, however YAML is read


class Session:
    """Where a command's run lies, which checkpoint it goes on from, and who the run is.

    Args:
        verb: fit, validate or test.
        ckpt_path: a file, `last` or `best`; null for a new run.
        run_dir: the folder of the run; null for the one that the checkpoint lies in, else a new one.
        names: of the learner and the data, for a new folder.
        num_nodes: machines of the job.

    Attributes:
        folder: of the run.
        ckpt_path: file of the checkpoint, null for a new run.
        checkpoint: its content, null for a new run.
        run_id: by which loggers know the run.
        parent_id: of the run that this one has left, by going back to an earlier checkpoint; null for most runs.

    Raises:
        InputError: there is no such checkpoint, it is missing, or the folder holds one that is not asked for.
    """

    def __init__(self, verb: str, ckpt_path: str | None, run_dir: str | None, names: tuple[str, str], num_nodes: int):
        self.checkpoint: dict[str, Any] | None = None
        self.ckpt_path: Path | None = None
        if comes_back() and verb == "fit" and run_dir and (checkpoint_dir(run_dir) / "last.ckpt").exists():
            ckpt_path = ckpt_path or "last"
        if ckpt_path:
            self.ckpt_path = find_checkpoint(ckpt_path, Path(run_dir) if run_dir else None)
            self.checkpoint = read_checkpoint(self.ckpt_path)
            if not run_dir and self.ckpt_path.parent.name == "checkpoints":
                run_dir = str(self.ckpt_path.parent.parent)
        elif verb != "fit":
            raise InputError(f"{verb} needs --ckpt_path: a file, or last or best with --trainer.default_root_dir DIR")
        elif run_dir and is_rank_zero() and any(checkpoint_dir(run_dir).glob("*.ckpt")):
            raise InputError(f"{run_dir} holds a checkpoint already; continue it with --ckpt_path last, or choose another folder")
        self.folder = Path(run_dir or new_run_dir(*names, num_nodes))
        self._lock = RunLock(self.folder)
        before = self.checkpoint or {}
        self.run_id, self.parent_id = before.get("run_id"), before.get("parent_id")
        self._forks = verb == "fit" and bool(before) and goes_back(self.ckpt_path, before["global_step"], self.folder)
        if self._forks:
            self.run_id, self.parent_id = new_run_id(), self.run_id
        self.run_id = self.run_id or os.environ.get("WANDB_RUN_ID") or new_run_id()

    def make_folder(self) -> None:
        """Makes the folder, where it is absent.

        Raises:
            InputError: what is found could not be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"--trainer.default_root_dir {self.folder} cannot be written ({reason}); give another folder"
            ) from error

    def begin(self) -> None:
        """Takes the folder for a fit, and sets aside what the run had recorded after the checkpoint that it goes back to.

        Raises:
            InputError: another process trains in the folder, or it cannot be written.
        """
        self._lock.acquire()
        if self._forks:
            aside = set_aside(self.folder, self.checkpoint["global_step"])
            print(f"the run had gone further than this checkpoint; what came after it is kept in {aside}")

    def end(self) -> None:
        """Gives the folder back."""
        self._lock.release()


def new_run_id() -> str:
    """Eight letters that no other run has."""
    return "".join(random.SystemRandom().choices(LETTERS, k=8))
