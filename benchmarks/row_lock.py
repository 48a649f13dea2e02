"""Who is at work on a training."""

import fcntl
import json
import os
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any


class RowLock:
    """Holds a training for this process and those that it starts, so that no two work on the same one.

    The kernel's lock on a file ends with the last process that holds it, however that ends: nothing has to be cleaned up after a
    dead one. On a disk that several machines share, it counts for all of them where the disk passes such locks on, as NFS does.

    Args:
        path: of the file; it says who holds the lock.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None

    def acquire(self) -> bool:
        """Whether the lock was free."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate(0)
        since = datetime.now().isoformat(timespec="seconds")
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}) + "\n")
        file.flush()
        self._file = file
        return True

    def release(self) -> None:
        """Lets others take it, when the processes that inherited it have ended too."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def fileno(self) -> int:
        """What a process must inherit to hold the lock as well."""
        return self._file.fileno()

    def holder(self) -> str:
        """Who has written last that it holds the lock."""
        for _ in range(2):  # it may be about to write
            try:
                found = json.loads(self.path.read_text())
                return f"process {found['pid']} on {found['host']} since {found['since']}"
            except (OSError, ValueError, KeyError):
                time.sleep(0.05)
        return "another process"
