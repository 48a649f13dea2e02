"""Arrays that are built once and then memory-mapped from the user's cache folder."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

from app.errors import InputError

SEAL = "seal.json"  # size and digest of every file, written last
BLOCK, BLOCKS = 4096, 64  # bytes of a file that are digested at a time, and how often


def default_cache_dir() -> Path:
    """The user's cache folder of this application, or one for temporary files where that cannot be written."""
    with suppress(RuntimeError, OSError):  # a user without a home, or with one that cannot be written
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meta-learning-app"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    folder = Path(tempfile.gettempdir()) / f"meta-learning-app-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"your home folder cannot be written, and {folder} is another user's; give --data.cache_dir")
    return folder


def cached_arrays(
    cache_dir: str | os.PathLike | None, name: str, key: str, build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that `build` returns, memory-mapped; built only where no whole copy of the same key lies in the cache.

    Args:
        cache_dir: null for the user's cache folder.
        name: of the data set, the readable part of the folder's name.
        key: everything that the arrays depend on: the manifest of the source, options, library versions.
        build: makes the arrays; an array of strings is allowed.

    Raises:
        InputError: the cache cannot be written.
    """
    return cached_folder(cache_dir, name, key, lambda folder: save(build(), folder))


def cached_folder(
    cache_dir: str | os.PathLike | None, name: str, key: str, write: Callable[[Path], None]
) -> dict[str, np.ndarray]:
    """The same for arrays that memory does not hold: `write` puts them into the folder it gets, as `<array>.npy`."""
    folder = cache_folder(cache_dir, name, key)
    arrays = _mapped(folder)
    if arrays is None:
        with _only_writer(folder):
            arrays = _mapped(folder) or _made(folder, write)
    return arrays


def cache_folder(cache_dir: str | os.PathLike | None, name: str, key: str) -> Path:
    """The folder in the cache for what `name` and `key` identify; arguments as of `cached_arrays`."""
    root = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    return root / f"{name}-{sha256(key.encode()).hexdigest()[:16]}"


def save(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Writes each array as `<name>.npy`."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _mapped(folder: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a folder that is as it was written, else null."""
    try:
        seal = json.loads((folder / SEAL).read_text())
        if any(_stamp(folder / name) != stamp for name, stamp in seal.items()):
            return None
        # Copy-on-write: torch refuses to wrap a read-only array without a warning.
        return {Path(name).stem: np.load(folder / name, mmap_mode="c", allow_pickle=False) for name in seal}
    except (OSError, EOFError, ValueError, AttributeError):
        return None


def _stamp(path: Path) -> str:
    """Size and digest of a file, of a large one the digest of its beginning and of blocks all over it."""
    size, digest = path.stat().st_size, sha256()
    with path.open("rb") as file:
        for start in sorted({size * part // BLOCKS for part in range(BLOCKS)}):
            file.seek(start)
            digest.update(file.read(BLOCK))
    return f"{size} {digest.hexdigest()}"


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Inside, no other process fills this folder; what another one has under way is waited for."""
    root, is_new = folder.parent, not folder.parent.exists()
    lock = FileLock(root / f".{folder.name}.lock")
    try:
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process, which fills the cache {folder}", flush=True)
            lock.acquire()
        try:
            yield
        finally:
            with suppress(OSError):  # who waits for it finds the folder filled
                os.unlink(lock.lock_file)
            lock.release()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write the cache {folder} ({reason}); free space or choose another --data.cache_dir") from error
    finally:
        if is_new:
            with suppress(OSError):  # it holds what was written
                root.rmdir()


def _made(folder: Path, write: Callable[[Path], None]) -> dict[str, np.ndarray]:
    """Writes a folder beside its place and renames it at the end; nothing is left of it where that fails."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as beside:
        finished = Path(beside) / "finished"  # unlike `beside`, with the permissions that the user's umask gives
        finished.mkdir()
        write(finished)
        files = sorted(finished.glob("*.npy"))
        (finished / SEAL).write_text(json.dumps({path.name: _stamp(path) for path in files}))
        # Else a power cut may leave the name of a file without its content.
        for path in (*files, finished / SEAL, finished):
            _flush(path)
        if folder.exists():
            rank_zero_info(f"the cache {folder} is damaged; it is made anew")
            folder.rename(Path(beside) / "damaged")
        finished.rename(folder)
        _flush(folder.parent)
    arrays = _mapped(folder)
    if arrays is None:
        raise InputError(f"the cache {folder} cannot be read back; choose another --data.cache_dir")
    return arrays


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
