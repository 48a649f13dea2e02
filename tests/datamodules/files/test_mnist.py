"""MNIST from idx files: hand-made ones, and the real ones where they are."""

import gzip
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from app.errors import InputError
from datamodules.files import mnist
from datamodules.files.mnist import MNIST, read_idx

SPLITS = ("train", "val", "test")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = np.array([0x800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
        file.write(header + array.tobytes())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Files of 6 + 3 images, of which 2 are for validation; some packed, some not."""
    monkeypatch.setattr(mnist, "NUM_IMAGES", {"train": 6, "t10k": 3})
    monkeypatch.setattr(mnist, "NUM_VAL", 2)
    generator = np.random.default_rng(0)
    for part, count, suffix in (("train", 6, ".gz"), ("t10k", 3, "")):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", generator.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8))
    return tmp_path


def test_the_splits_of_the_files(folder):
    data = MNIST(str(folder), cache_dir=str(folder / "cache"))
    data.prepare_data()
    splits = {split: data.read_split(split) for split in SPLITS}
    assert [splits[split].labels.tolist() for split in SPLITS] == [[0, 1, 2, 3], [4, 5], [0, 1, 2]]
    content = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(content, np.uint8)[16:].reshape(6, 1, 28, 28)
    assert np.array_equal(np.concatenate([splits["train"].images, splits["val"].images]), pixels)
    assert splits["test"].images.dtype == np.uint8 and splits["test"].images.shape == (3, 1, 28, 28)
    again = MNIST(str(folder), cache_dir=str(folder / "cache")).read_split("val")
    assert again.digest == splits["val"].digest and len({split.digest for split in splits.values()}) == 3


def test_files_that_are_absent(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    with pytest.raises(InputError) as error:
        MNIST(str(tmp_path / "lost"), cache_dir=str(tmp_path)).prepare_data()
    words = ("--data.data_dir", "lost has no train-images-idx3-ubyte.gz", "no network", f"put them into {tmp_path / 'lost'}")
    assert all(word in str(error.value) for word in words)
    assert not (tmp_path / "lost").exists()


@pytest.mark.parametrize("fault", ["cut", "other", "short"])
def test_files_that_are_damaged(fault, folder):
    path = folder / "train-images-idx3-ubyte.gz"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        write_idx(path, np.zeros((6, 28, 27) if fault == "other" else (5, 28, 28), np.uint8))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz cannot be read .*; get the four idx files"):
        MNIST(str(folder), cache_dir=str(folder / "cache")).prepare_data()
    assert not (folder / "cache").exists()


def test_read_idx(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "file", array)
    assert np.array_equal(read_idx(tmp_path / "file", (2, 3, 4)), array)
    with pytest.raises(ValueError, match="2051, 2, 3"):
        read_idx(tmp_path / "file", (2, 12))


def test_the_real_digits(data_dir, tmp_path):
    if not (data_dir / "mnist").is_dir():
        pytest.skip(f"no {data_dir / 'mnist'}: put the four idx files of MNIST there")
    data = MNIST(str(data_dir), cache_dir=str(tmp_path))
    data.prepare_data()
    splits = [data.read_split(split) for split in SPLITS]
    assert [split.images.shape for split in splits] == [(count, 1, 28, 28) for count in (50_000, 10_000, 10_000)]
    assert splits[0].labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert splits[2].labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(splits[2].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = np.concatenate([split.images for split in splits[:2]])
    assert round(float(pixels.mean()) / 255, 4) == 0.1307  # the mean that everyone normalises by
