"""One fit at a time in the folder of a run."""

import json
import os
import platform
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import InputError

LOCK = ".lock"  # stays in the folder: who removed it could lock one file while another process locks its successor
HOLDER = ".in_use.json"  # who holds the lock, for the others' message


class RunLock:
    """Keeps other fits out of a run's folder while it is held; the system frees it when its process ends, however it ends.

    Args:
        run_dir: the folder; it is made where it is absent.
    """

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self._lock = FileLock(run_dir / LOCK)

    def acquire(self) -> None:
        """Takes the folder.

        Raises:
            InputError: another process has it, or the folder cannot be written.
        """
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            me = {"process": os.getpid(), "machine": platform.node(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            (self.run_dir / HOLDER).write_text(json.dumps(me))
        except Timeout as error:
            holder = {"process": "unknown", "machine": "unknown", "since": "unknown"}
            with suppress(OSError, ValueError):
                holder |= json.loads((self.run_dir / HOLDER).read_text())
            who = f"process {holder['process']} on {holder['machine']} since {holder['since']}"
            raise InputError(
                f"{self.run_dir} is in use by {who}; wait for it, stop it, or choose another --trainer.default_root_dir"
            ) from error
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"--trainer.default_root_dir {self.run_dir} cannot be written ({reason}); choose another folder"
            ) from error

    def release(self) -> None:
        """Gives the folder back, where it was taken."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self.run_dir / HOLDER).unlink()
            self._lock.release()
