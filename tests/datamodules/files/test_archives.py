"""An archive from elsewhere writes nothing outside of its folder, and no more than it may."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from app.errors import InputError
from datamodules.files import archives
from datamodules.files.archives import unpack


def pack(path: Path, names: dict[str, bytes], link: str | None = None) -> Path:
    """An archive of these files, and of one link that leads to `link`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in names.items():
                file.writestr(name, content)
            if link:
                entry = zipfile.ZipInfo("link")
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                file.writestr(entry, link)
        return path
    with tarfile.open(path, "w:gz") as file:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            file.addfile(entry)
    return path


@pytest.fixture(params=["a.zip", "a.tgz"])
def archive(request, tmp_path) -> Path:
    return tmp_path / request.param


def refused(archive: Path, *words: str) -> None:
    folder = archive.parent / "unpacked"
    folder.mkdir()
    before = set(archive.parent.iterdir())
    with pytest.raises(InputError) as error:
        unpack(archive, folder)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in (str(archive), *words))
    assert set(archive.parent.iterdir()) == before and not any(path.is_file() for path in folder.rglob("*"))


def test_a_plain_archive(archive, tmp_path):
    unpack(pack(archive, {"a/b.txt": b"1", "c.txt": b"2"}), tmp_path)
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"1" and (tmp_path / "c.txt").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt"])
def test_a_path_that_leads_outside(archive, name):
    refused(pack(archive, {name: b"1"}), "outside")


def test_a_link(archive):
    refused(pack(archive, {}, link="/etc/passwd"), "link")


def test_a_name_that_no_disk_takes(archive):
    refused(pack(archive, {f"a/{'x' * 300}": b"1"}), "302 characters")


def test_a_bomb(archive, monkeypatch):
    monkeypatch.setattr(archives, "SMALL", 1000)
    refused(pack(archive, {"zeros": bytes(10**6)}), "unpacks to more than")


def test_an_archive_cut_short(archive):
    content = pack(archive, {"a": bytes(range(256)) * 100}).read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a whole archive"):
        unpack(archive, archive.parent)
