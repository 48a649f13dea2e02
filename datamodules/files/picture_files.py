"""The pictures that lie in a folder or in a .zip archive."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from app.errors import InputError
from datamodules.files.archives import is_outside

# By these endings a file is a picture without a look at it, so that a folder of many is listed fast.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
FOREIGN = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw")  # of cameras: named as unreadable, not overlooked
Image.init()
# Without those that other programs are started for, such as EPS, and those that this Pillow cannot read.
RASTER = (
    *("PNG", "JPEG", "JPEG2000", "BMP", "DIB", "GIF", "WEBP", "AVIF", "TIFF", "PPM", "TGA", "PCX", "ICO", "ICNS"),
    *("SGI", "QOI", "PSD", "XBM", "XPM", "DDS"),
)
FORMATS = tuple(name for name in RASTER if name in Image.OPEN)
RECOGNISED = tuple(name for name in FORMATS if name != "TGA")  # as which anything passes: there the ending has to say it
LARGEST = 2**28  # bytes of a picture's file


class Picture(NamedTuple):
    """One file of a `PictureFiles`."""

    files: "PictureFiles"
    name: str

    def __str__(self) -> str:
        return printable(str(self.files.path / self.name))

    def read(self) -> bytes:
        """The file's content.

        Raises:
            ValueError: it is larger than any picture may be.
        """
        if (size := self.files.size(self.name)) > LARGEST:
            raise ValueError(f"it has {size:,} bytes, more than the {LARGEST:,} that a picture may have")
        return self.files.read(self.name)


def printable(name: str) -> str:
    """A file's name as text: bytes that are none in UTF-8 are shown by their numbers, so that no two names become one."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


class PictureFiles:
    """The files of a folder or of a .zip archive, without the hidden ones.

    Args:
        path: the folder or the archive.
        remedy: what to do where it cannot be read, the end of the error's line.

    Attributes:
        stamps: relative path of each picture, sorted, and what changes when its content does: size and time, or size and CRC.
        folders: relative paths of the folders, empty ones too.
        others: relative paths of the files that are no pictures, sorted.

    Raises:
        InputError: it cannot be read, is no archive, or is an archive that was cut short or names files outside of it.
    """

    def __init__(self, path: Path, remedy: str):
        self.path, self.remedy = path, remedy
        self.archive: zipfile.ZipFile | None = None
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            if path.is_dir():
                entries = self._walk()
            else:
                self.archive = zipfile.ZipFile(path)
                # Some programs for Windows write backslashes.
                self._entries = {entry.filename.replace("\\", "/"): entry for entry in self.archive.infolist()}
                if outside := next((name for name in self._entries if is_outside(name)), None):
                    raise InputError(
                        f"{path} holds {printable(outside)[:60]!r}, which lies outside of it; do not trust it, {remedy}"
                    )
                entries = {name: f"{entry.file_size} {entry.CRC:08x}" for name, entry in self._entries.items()}
        except zipfile.BadZipFile as error:
            with path.open("rb") as file:
                cut_short = file.read(4) == b"PK\x03\x04"
            fault = "is a .zip archive cut short" if cut_short else "is not a .zip archive"
            raise InputError(f"{path} ({path.stat().st_size:,} bytes) {fault}; {remedy}") from error
        except OSError as error:
            raise InputError(f"cannot read {error.filename or path} ({error.strerror}); {remedy}") from error
        names = sorted(name for name in entries if not _hidden(name))
        files = [name for name in names if name and not name.endswith("/")]
        pictures = [name for name in files if self._is_picture(name)]
        self.stamps = {name: entries[name] for name in pictures}
        self.others = sorted(set(files) - set(pictures))
        innermost = {name.rpartition("/")[0] for name in names}
        self.folders = {str(folder) for name in innermost for folder in PurePosixPath(name, "-").parents} - {"."}

    def _walk(self) -> dict[str, str]:
        def stop(error: OSError) -> None:
            raise error

        entries = {}
        for folder, folders, files in os.walk(self.path, onerror=stop, followlinks=True):
            folders[:] = [name for name in folders if not _hidden(name)]
            above = "" if folder == str(self.path) else Path(folder).relative_to(self.path).as_posix() + "/"
            entries[above] = ""
            for name in files:
                try:
                    status = os.stat(os.path.join(folder, name))
                    entries[above + name] = f"{status.st_size} {status.st_mtime_ns}"
                except OSError:  # a link to nothing: if it is a picture, decoding says so
                    entries[above + name] = "absent"
        return entries

    def _is_picture(self, name: str) -> bool:
        """Whether a file is one by its ending, or by what is in it."""
        if name.lower().endswith((*SUFFIXES, *FOREIGN)):
            return True
        try:
            with self.open(name) as file, Image.open(file, formats=RECOGNISED):
                return True
        except Exception:  # whatever Pillow makes of a file that is none
            return False

    @property
    def pictures(self) -> list[Picture]:
        """The files that are pictures."""
        return [Picture(self, name) for name in self.stamps]

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(self._entries[name]) if self.archive else (self.path / name).open("rb")

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._entries[name].file_size if self.archive else (self.path / name).stat().st_size

    @rank_zero_only
    def say_others(self, option: str, say: Callable[[str], None] = print) -> None:
        """Says how many files are left out because they are no pictures, where there are some.

        Args:
            option: that gave the files.
            say: writes a line.
        """
        if self.others:
            count = f"{len(self.others):,} files are" if len(self.others) > 1 else "1 file is"
            none = "no pictures" if len(self.others) > 1 else "no picture"
            say(f"{option} {self.path}: {count} {none} and left out, the first is {printable(self.others[0])}")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
