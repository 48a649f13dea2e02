"""The file of a learner that lives: read whole, written whole, by one writer at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from app.errors import InputError

LEARNER_FORMAT = 2  # raise it where an older file can no longer be read as it was meant


def revision_of(path: Path) -> str | None:
    """What tells this state of the file from all others, null where there is none: every write makes a new file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"


def read_learner(path: Path) -> dict[str, Any]:
    """The content of the file: tensors and plain values.

    Raises:
        InputError: there is none, it is cut short, of another format, no learner, or holds what could run something.
    """
    if not path.is_file():
        is_what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"--learner {path} {is_what}; give the file of a learner, or begin a new one with --ckpt_path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its reader meets first
        size = path.stat().st_size
        raise InputError(
            f"--learner {path} ({size} bytes) is not a whole learner, or not tensors and plain values alone; give a copy of it"
        ) from error
    if isinstance(content, dict) and "learner_format" not in content and "algorithm" in content:
        raise InputError(f"--learner {path} is a checkpoint; give it as --ckpt_path, and --learner the name of a new file")
    if not isinstance(content, dict) or "learner_format" not in content:
        raise InputError(f"--learner {path} is no learner of this application; give a file that `train.py learn` wrote")
    if content["learner_format"] != LEARNER_FORMAT:
        raise InputError(
            f"--learner {path} is of format {content['learner_format']}, and this version reads format {LEARNER_FORMAT}; use the "
            "version that wrote it, or learn anew from the checkpoint"
        )
    return content


def write_learner(path: Path, content: dict[str, Any], expected: str | None) -> str | None:
    """Writes the file beside its place, flushes it to the disk and renames it; returns the revision that it has now.

    Args:
        path: of the file.
        content: tensors and plain values.
        expected: revision of the file that is to be replaced, null where there must be none.

    Raises:
        InputError: the file is another one than expected, someone else is writing, or it cannot be written.
    """
    with held(path):
        found = revision_of(path)
        if found != expected:
            was = "is there already" if expected is None else "was changed by another program" if found else "is gone"
            raise InputError(
                f"--learner {path} {was} since it was read; nothing was written: read it again, or give another name"
            )
        beside = path.with_name(f".{path.name}.part")  # what a kill leaves of it, the next write replaces
        try:
            with beside.open("wb") as file:
                torch.save({"learner_format": LEARNER_FORMAT, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(f"--learner {path} cannot be written ({reason}); what was there is as it was") from error
        finally:
            with suppress(OSError):
                beside.unlink()
        return revision_of(path)


_held: set[Path] = set()  # by this process


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Inside, no other process writes the file; the system frees it when the process ends, however it ends.

    Raises:
        InputError: another process has it, or its folder cannot be written.
    """
    place = path.resolve()
    if place in _held:
        yield
        return
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"--learner {path} is being written by another process; wait for it, then try again") from error
    except OSError as error:
        raise InputError(f"--learner {path} cannot be written ({error.strerror or error}); give another place") from error
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
