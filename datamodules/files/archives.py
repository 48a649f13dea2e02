"""Archives from elsewhere, unpacked within bounds: nothing is written outside of the folder that they go to."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from app.errors import InputError

SMALL = 2**30  # bytes that any archive may unpack to
GROWTH = 200  # how many times its own size a larger one may
LONGEST = 255  # bytes of a file's name


class DamagedFile(InputError):
    """A file that was not published like this: its download was broken off, or brought something else.

    Args:
        path: of the file.
        fault: what is wrong with it.
    """

    def __init__(self, path: Path, fault: str):
        self.path = path
        super().__init__(f"{path} ({path.stat().st_size:,} bytes) {fault}")


class _Member(NamedTuple):
    """What an archive says of one of its files."""

    name: str
    size: int
    is_plain: bool
    itself: zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .zip or a compressed .tar into a folder, after a look at what it says of each file.

    Raises:
        DamagedFile: it is cut short, or no archive.
        InputError: a file would lie outside of the folder, is a link, a device or has too long a name; or all of them take more
            than `GROWTH` times the archive's size and `SMALL`, or than the disk has.
    """
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as opened:
                members = list(_checked(archive, folder, map(_of_zip, opened.infolist())))
                opened.extractall(folder, [member.itself for member in members])
        else:
            with tarfile.open(archive, "r:*") as opened:
                for member in _checked(archive, folder, map(_of_tar, opened)):  # whose list is known at its end alone
                    opened.extract(member.itself, folder, filter="data")
    except (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DamagedFile(archive, f"is not a whole archive ({' '.join(str(error).split())})") from error


def is_outside(name: str) -> bool:
    """Whether a file of an archive says that it belongs elsewhere than below the folder where the archive is unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def _of_zip(entry: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return _Member(entry.filename, entry.file_size, kind in (0, stat.S_IFREG, stat.S_IFDIR), entry)


def _of_tar(entry: tarfile.TarInfo) -> _Member:
    return _Member(entry.name, entry.size, entry.isreg() or entry.isdir(), entry)


def _checked(archive: Path, folder: Path, members: Iterator[_Member]) -> Iterator[_Member]:
    """The members one after the other, each looked at before it is given."""
    allowed = SMALL + GROWTH * archive.stat().st_size
    free, total = shutil.disk_usage(folder).free, 0
    for member in members:
        path, shown = PurePosixPath(member.name.replace("\\", "/")), repr(member.name[:60])
        if is_outside(member.name):
            raise InputError(f"{archive} holds {shown}, which lies outside of it; do not trust it, get it from its publisher")
        if any(len(part.encode(errors="surrogateescape")) > LONGEST for part in path.parts):
            raise InputError(f"{archive} holds a name of {len(member.name)} characters, {shown}...; give shorter names")
        if not member.is_plain:
            raise InputError(f"{archive} holds {shown}, which is a link or a device; do not trust it, get it from its publisher")
        total += member.size
        if total > allowed:
            raise InputError(
                f"{archive} has {archive.stat().st_size:,} bytes and unpacks to more than {allowed:,}; do not trust it, or "
                "unpack it yourself"
            )
        if total > free:
            raise InputError(f"{archive} unpacks to more than the {free:,} bytes that are free on the disk; free some")
        yield member
