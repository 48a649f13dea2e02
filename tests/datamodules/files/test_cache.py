"""What lies in the cache is whole, or made anew; two processes do not fill it at once."""

from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from app.errors import InputError
from datamodules.files.cache import cached_arrays, default_cache_dir


def built(calls: list[int]) -> dict[str, np.ndarray]:
    calls.append(1)
    return {"images": np.arange(100_000, dtype=np.uint8), "names": np.array(["a", "b"])}


def found(folder: Path, calls: list[int]) -> np.ndarray:
    arrays = cached_arrays(folder, "some", "key", lambda: built(calls))
    assert arrays["names"].tolist() == ["a", "b"]
    return arrays["images"]


def test_arrays_are_built_once_and_nothing_else_is_left(tmp_path):
    calls: list[int] = []
    for _ in range(2):
        assert (found(tmp_path, calls) == np.arange(100_000, dtype=np.uint8)).all()
    assert len(calls) == 1
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "names.npy", "seal.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(path.read_bytes()[:128] + bytes(100_000)),
        lambda path: path.unlink(),
        lambda path: path.with_name("seal.json").unlink(),
        lambda path: path.with_name("seal.json").write_bytes(b"\0\0"),
    ],
    ids=["empty", "zeros", "cut short", "zeros after the header", "gone", "no seal", "a seal of zeros"],
)
def test_a_damaged_cache_is_made_anew(damage, tmp_path):
    calls: list[int] = []
    found(tmp_path, calls)
    (path,) = tmp_path.glob("*/images.npy")
    damage(path)
    assert (found(tmp_path, calls) == np.arange(100_000, dtype=np.uint8)).all()
    assert len(calls) == 2 and len(list(tmp_path.iterdir())) == 1


def test_the_second_of_two_first_runs_waits(tmp_path, capsys):
    calls, begun, goes_on = [], Event(), Event()

    def slowly() -> dict[str, np.ndarray]:
        begun.set()
        goes_on.wait(10)
        return built(calls)

    first = Thread(target=lambda: cached_arrays(tmp_path, "some", "key", slowly))
    first.start()
    begun.wait(10)
    second = Thread(target=lambda: found(tmp_path, calls))
    second.start()
    while "waiting" not in capsys.readouterr().out:
        second.join(0.01)
    goes_on.set()
    first.join()
    second.join()
    assert len(calls) == 1


def test_a_builder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no such pictures"):
        cached_arrays(tmp_path / "cache", "some", "key", lambda: (_ for _ in ()).throw(InputError("no such pictures")))
    assert not (tmp_path / "cache").exists()


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache_dir().parent == tmp_path
