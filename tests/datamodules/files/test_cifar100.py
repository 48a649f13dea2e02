"""CIFAR-100 as its authors publish it: small files in its format."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.benchmark_files import dump

from app.errors import InputError
from datamodules.files import cifar100
from datamodules.files.published import read_arrays
from datamodules.split_cifar100 import SplitCIFAR100

TRAIN, TEST = 4, 2  # images of each class


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The archive, with the number of an image's class in its red pixels, and its own in the green ones."""
    monkeypatch.setattr(cifar100, "NUM_IMAGES", {"train": 100 * TRAIN, "test": 100 * TEST})
    monkeypatch.setattr(cifar100, "VAL_OF_CLASS", 1)
    monkeypatch.setattr(cifar100, "ARCHIVE", cifar100.ARCHIVE._replace(md5=None))
    inside = tmp_path / "unpacked" / "cifar-100-python"
    inside.mkdir(parents=True)
    for part, count in (("train", TRAIN), ("test", TEST)):
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(100), count))
        pixels = np.zeros((len(labels), 3, 32, 32), np.uint8)
        pixels[:, 0], pixels[:, 1] = labels[:, None, None], (np.arange(len(labels)) % 256)[:, None, None]
        dump({"data": pixels.reshape(len(labels), -1), "fine_labels": labels.tolist()}, inside / part, "python2")
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as file:
        file.add(inside, "cifar-100-python")
    return tmp_path


def ready(folder: Path, **options) -> SplitCIFAR100:
    stream = SplitCIFAR100(data_dir=folder, cache_dir=folder / "cache", **options)
    stream.prepare_data()
    stream.setup()
    stream.check()
    return stream


def test_ten_classes_at_a_time(folder):
    stream = ready(folder)
    seen = []
    for number, experience in enumerate(stream.experiences):
        images, labels = stream.read(number, "train")
        assert images.shape == (10 * TRAIN, 3, 32, 32) and (images[:, 0, 0, 0] == labels).all()
        assert set(labels) == set(experience.classes)
        seen += experience.classes
    assert sorted(seen) == list(range(100)) and seen != sorted(seen) and stream.output_size == 100
    assert ready(folder, shuffle_classes=False).experiences[2].classes == tuple(range(20, 30))


def test_validation_images_are_the_last_of_each_class(folder):
    official, chosen = (
        ready(folder, evaluate_on=split, classes_per_experience=100, shuffle_classes=False) for split in ("test", "val")
    )
    val, labels = chosen.read(0, "test")
    assert (
        sorted(labels) == list(range(100)) and chosen.num_train(0) == 100 * (TRAIN - 1) and official.num_train(0) == 100 * TRAIN
    )
    content = read_arrays(folder / "unpacked" / "cifar-100-python" / "train")
    last = {label: row for row, label in enumerate(content["fine_labels"])}
    assert all(image[1, 0, 0] == last[label] % 256 for image, label in zip(val, labels, strict=True))


def test_what_is_wrong_is_said_in_a_line(folder):
    with pytest.raises(InputError, match="is 3 in the class scenario; give 2, 4, 5, 10, 20, 25, 50 or 100"):
        SplitCIFAR100(classes_per_experience=3)
    archive = folder / "cifar-100-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:900])
    with pytest.raises(InputError, match=r"cifar-100-python.tar.gz .*; get https://www.cs.toronto.edu") as error:
        ready(folder)
    assert "\n" not in str(error.value)
