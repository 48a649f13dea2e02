"""Arrays that are built once and then memory-mapped from the user's cache folder."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from app.errors import InputError


def default_cache_dir() -> Path:
    """The user's cache folder of this application."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meta-learning-app"


def cached_arrays(
    cache_dir: str | os.PathLike | None, name: str, key: str, build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that `build` returns, memory-mapped; built only where no finished copy of the same key lies in the cache.

    Args:
        cache_dir: null for the user's cache folder.
        name: of the data set, the readable part of the folder's name.
        key: everything that the arrays depend on: the manifest of the source, options, library versions.
        build: makes the arrays; an array of strings is allowed.

    Raises:
        InputError: the cache cannot be written.
    """
    folder = _folder(cache_dir, name, key)
    if not folder.exists():
        arrays = build()
        with _written_beside(folder) as beside:
            save(arrays, beside)
    return _mapped(folder)


def cached_folder(
    cache_dir: str | os.PathLike | None, name: str, key: str, write: Callable[[Path], None]
) -> dict[str, np.ndarray]:
    """The same for arrays that memory does not hold: `write` puts them into the folder it gets, as `<array>.npy`."""
    folder = _folder(cache_dir, name, key)
    if not folder.exists():
        with _written_beside(folder) as beside:
            write(beside)
    return _mapped(folder)


def save(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Writes each array as `<name>.npy`."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _folder(cache_dir: str | os.PathLike | None, name: str, key: str) -> Path:
    root = Path(cache_dir) if cache_dir else default_cache_dir()
    return root / f"{name}-{sha256(key.encode()).hexdigest()[:16]}"


@contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """A new folder that is renamed to `folder` at the end; nothing is left of it where writing it fails."""
    is_new = not folder.parent.exists()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as beside:
            finished = Path(beside) / "finished"  # unlike `beside`, with the permissions that the user's umask gives
            finished.mkdir()
            yield finished
            try:
                finished.rename(folder)
            except OSError:
                if not folder.exists():  # else another process finished the same arrays first
                    raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write the cache {folder} ({reason}); free space or choose another --data.cache_dir") from error
    finally:
        if is_new:
            with suppress(OSError):  # it holds what was written
                folder.parent.rmdir()


def _mapped(folder: Path) -> dict[str, np.ndarray]:
    try:
        # Copy-on-write: torch refuses to wrap a read-only array without a warning.
        return {path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    except (OSError, ValueError) as error:
        raise InputError(f"the cache {folder} is damaged; delete it, it will be built again") from error
