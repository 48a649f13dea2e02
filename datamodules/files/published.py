"""The files of a publisher as they lie in a folder: found, looked at, unpacked."""

import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from app.errors import InputError
from datamodules.files.archives import DamagedFile, unpack


class Published(NamedTuple):
    """A file of a publisher.

    Attributes:
        name: of the file.
        url: where it is.
        contents: relative paths of what an archive holds, which may lie there unpacked instead; none for a plain file.
        other_names: under which it goes around.
        md5: of the file, null where its publisher tells none.
    """

    name: str
    url: str
    contents: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    md5: str | None = None

    def find(self, folders: Iterable[Path]) -> Path | None:
        """The file, or the folder in which all of its contents lie; null where there is neither."""
        for folder in folders:
            if self.contents and all((folder / content).exists() for content in self.contents):
                return folder
            for name in (self.name, *self.other_names):
                if (folder / name).is_file():
                    return folder / name
        return None

    def stamp(self, place: Path) -> list[tuple[str, int, int]]:
        """Name, size and time of every file that `find` has found."""
        files = [place] if place.is_file() else [file for content in self.contents for file in _files(place / content)]
        return sorted((str(file.relative_to(place)), file.stat().st_size, file.stat().st_mtime_ns) for file in files)

    @contextmanager
    def opened(self, place: Path, beside: Path) -> Iterator[Path]:
        """What `find` has found, an archive unpacked into a temporary folder in `beside`.

        Raises:
            DamagedFile: the archive is cut short, or is none.
            InputError: it would write outside of the folder, or far more than its own size.
        """
        if not self.contents or place.is_dir():
            yield place
            return
        beside.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unpacked-", dir=beside, ignore_cleanup_errors=True) as folder:
            unpack(place, Path(folder))
            inside = [Path(folder), *(path for path in Path(folder).iterdir() if path.is_dir())]
            found = self.find(inside)
            if found is None:
                raise DamagedFile(place, f"does not hold {' and '.join(self.contents)}")
            yield found


def read_arrays(path: Path) -> object:
    """The content of a pickle of numbers, strings and numpy arrays, in lists and dictionaries; of Python 2 too.

    Raises:
        DamagedFile: it is cut short or no pickle.
        InputError: it would run something else.
    """
    with path.open("rb") as file:
        try:
            return _ArraysOnly(file, encoding="latin-1").load()
        except InputError:
            raise
        except Exception as error:  # a broken pickle makes the reader raise errors of many kinds
            raise DamagedFile(path, f"is not a whole pickle ({_reason(error)})") from error


class _ArraysOnly(pickle.Unpickler):
    """Calls nothing but what makes numpy arrays."""

    allowed = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),
        ("_codecs", "encode"),  # bytes in pickles that Python 2 reads too
    )

    def find_class(self, module: str, name: str) -> object:
        if (module.replace("numpy._core", "numpy.core"), name) not in self.allowed:
            raise InputError(f"a file that should hold arrays asks for {module}.{name}, which may do anything; do not trust it")
        core = "numpy._core" if int(np.__version__.split(".")[0]) > 1 else "numpy.core"
        return super().find_class(module.replace("numpy._core", core).replace("numpy.core", core), name)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
