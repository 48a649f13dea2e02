import os
import shutil
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers.drawings import SPLITS, drawing, listed

from app.errors import InputError
from datamodules import omniglot
from datamodules.omniglot import Omniglot


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def two_drawers(request, monkeypatch):
    if "real_data" not in request.fixturenames:
        monkeypatch.setattr(omniglot, "DRAWERS", 2)


@pytest.fixture
def copy(archives, tmp_path) -> Path:
    return Path(shutil.copytree(archives, tmp_path / "data"))


@pytest.fixture
def real_data() -> Path:
    folder = Path(os.environ.get("META_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data")
    if not (folder / "omniglot-py").is_dir():
        pytest.skip(
            f"no {folder / 'omniglot-py'}: put the archives of {omniglot.SOURCE} there, or set META_DATA_DIR to its parent"
        )
    return folder


def ready(data_dir: Path, cache_dir: str | Path, **options) -> Omniglot:
    data = Omniglot(data_dir=str(data_dir), cache_dir=str(cache_dir), queries=1, **options)
    data.prepare_data()
    data.setup()
    return data


def fault(data_dir: Path, cache_dir: Path, **options) -> str:
    with pytest.raises(InputError) as error:
        ready(data_dir, cache_dir, **options)
    assert "\n" not in str(error.value)
    assert not list(Path(cache_dir).glob("omniglot-*"))
    return str(error.value)


def assert_disjoint(data: Omniglot) -> None:
    names = [{name.split("@")[0] for name in data.class_names(split)} for split in SPLITS]
    assert len(set.union(*names)) == sum(map(len, names)) == 1623


@pytest.mark.parametrize(("rotate", "turns"), [("train", (4, 1, 1)), ("all", (4, 4, 4)), ("none", (1, 1, 1))])
def test_vinyals_split(archives, cache_dir, rotate, turns):
    data = ready(archives, cache_dir, rotate=rotate)
    data.check()
    for split, times, characters in zip(SPLITS, turns, (1028, 172, 423), strict=True):
        names = data.class_names(split)
        assert len(set(names)) == len(names) == len(data._splits[split].counts) == times * characters
        assert [name.split("@")[0] for name in names] == times * listed(split)
    assert_disjoint(data)
    task = data.describe_task()
    assert task["rotate"] == rotate and task["num_test_classes"] == turns[2] * 423


def test_drawn_splits_are_disjoint_and_follow_their_seed(archives, cache_dir):
    data = ready(archives, cache_dir, split_protocol="random_1200_423", rotate="none")
    assert [len(data.class_names(split)) for split in SPLITS] == [1100, 100, 423]
    assert_disjoint(data)
    again = ready(archives, cache_dir, split_protocol="random_1200_423")
    other = ready(archives, cache_dir, split_protocol="random_1200_423", split_seed=1)
    assert data.class_names("test") == again.class_names("test") != other.class_names("test")
    # From numpy's frozen RandomState: a change here means other test classes than in every earlier run.
    assert data.class_names("test")[:2] == ["Alphabet_of_the_Magi/character08", "Alphabet_of_the_Magi/character12"]


def test_images_are_white_ink_on_black_and_turned_in_train_only(archives, cache_dir):
    data = ready(archives, cache_dir)
    assert data.input_shape == (1, 28, 28)
    train, names = data._splits["train"], data.class_names("train")
    assert train.images.dtype == np.uint8 and train.images.shape == (4112 * 2, 1, 28, 28)
    image = train.images[0, 0]
    assert image[1, 1] == 255 and image[-2, -2] == 0
    for turn in range(4):
        first = 2 * names.index(f"{names[0].split('@')[0]}@{90 * turn}")
        assert np.array_equal(train.images[first, 0], np.rot90(image, turn))
    for split in ("val", "test"):
        images = data._splits[split].images
        assert (images[:, 0, 1, 1] == 255).all() and (images[:, 0, -2, -2] == 0).all()
    unturned = ready(archives, cache_dir, rotate="none")
    assert np.array_equal(unturned._splits["train"].images, train.images[: 1028 * 2])
    everywhere = ready(archives, cache_dir, rotate="all")
    assert np.array_equal(
        everywhere._splits["test"].images[423 * 2 : 846 * 2], np.rot90(data._splits["test"].images, axes=(2, 3))
    )
    assert len({one.manifest_hash for one in (data, unturned, everywhere)}) == 3


def test_every_class_has_its_own_pictures(archives, cache_dir):
    data = ready(archives, cache_dir)
    names = sorted(name for split in SPLITS for name in listed(split))
    for split, index in (("val", 3), ("test", 422)):
        number = 2 * names.index(data.class_names(split)[index])
        digits = data._splits[split].images[2 * index + 1, 0, 14:19:4, 2::4] > 127
        assert sum(int(digit) << bit for bit, digit in enumerate(digits.ravel())) == number + 1


def test_episodes_are_deterministic(archives, cache_dir):
    one, other = ready(archives, cache_dir), ready(archives, cache_dir)
    assert one.manifest_hash == other.manifest_hash
    episode, same = one.episode("train", 7), other.episode("train", 7)
    assert episode.support_x.shape == (5, 1, 28, 28)
    assert all(torch.equal(a, b) for a, b in zip(episode, same, strict=True))


def test_cache_is_reused(archives, cache_dir, monkeypatch):
    data = ready(archives, cache_dir)
    monkeypatch.setattr("datamodules.files.pictures.decode", lambda *_: pytest.fail("decoded again"))
    assert ready(archives / "omniglot-py", cache_dir).manifest_hash == data.manifest_hash


@pytest.mark.slow
def test_unpacked_folders_are_the_same_data(archives, cache_dir, tmp_path):
    unpacked = tmp_path / "unpacked"
    for archive in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(archives / "omniglot-py" / f"{archive}.zip") as file:
            file.extractall(unpacked)
    assert ready(unpacked, tmp_path / "cache").manifest_hash == ready(archives, cache_dir).manifest_hash


def test_absent_archives_are_downloaded_once(archives, tmp_path, monkeypatch):
    asked = []

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        asked.append((url, md5))
        shutil.copy(archives / "omniglot-py" / url.rsplit("/")[-1], root)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    data = ready(tmp_path / "new", tmp_path / "cache")
    ready(tmp_path / "new", tmp_path / "cache")
    assert len(data.class_names("test")) == 423
    assert [url.rsplit("/")[-1] for url, _ in asked] == ["images_background.zip", "images_evaluation.zip"]
    assert all(len(md5) == 32 for _, md5 in asked)
    assert sorted(path.name for path in (tmp_path / "new" / "omniglot-py").iterdir()) == [
        "images_background.zip",
        "images_evaluation.zip",
    ]


def test_no_data_and_no_network(tmp_path, monkeypatch):
    def download_url(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    message = fault(tmp_path / "data", tmp_path / "cache")
    for part in (
        f"--data.data_dir {tmp_path / 'data'}",
        "Name or service not known",
        "images_background.zip and images_evaluation.zip",
        "https://github.com/brendenlake/omniglot/raw/master/python",
        f"put both into {tmp_path / 'data' / 'omniglot-py'}",
    ):
        assert part in message
    assert not (tmp_path / "data").exists()


def test_archive_cut_short(copy, tmp_path):
    archive = copy / "omniglot-py" / "images_evaluation.zip"
    archive.write_bytes(archive.read_bytes()[:100_000])
    message = fault(copy, tmp_path / "cache")
    assert f"{archive} (100,000 bytes) is a .zip archive cut short" in message and omniglot.SOURCE in message


def test_archive_that_is_none(copy, tmp_path):
    archive = copy / "omniglot-py" / "images_background.zip"
    archive.write_text("<html>404</html>")
    message = fault(copy, tmp_path / "cache")
    assert f"{archive} (16 bytes) is not a .zip archive" in message and omniglot.SOURCE in message


def test_archive_with_a_wrong_number_of_pictures(copy, tmp_path):
    archive = copy / "omniglot-py" / "images_background.zip"
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("images_background/Latin/character01/0001_03.png", drawing(0))
    message = fault(copy, tmp_path / "cache")
    assert f"{archive} holds 1,929 pictures instead of 1,928" in message and omniglot.SOURCE in message


def test_archive_with_other_classes(copy, tmp_path):
    with zipfile.ZipFile(copy / "omniglot-py" / "images_evaluation.zip", "w") as file:
        for number in range(659 * 2):
            file.writestr(f"Latin/character{number // 2 + 100}/{number}.png", drawing(0))
    message = fault(copy, tmp_path / "cache")
    assert "659 of the 1623 classes of the Vinyals split are not in --data.data_dir" in message


def test_picture_that_is_none(copy, tmp_path):
    archive = copy / "omniglot-py" / "images_background.zip"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as file:
        file.writestr("images_background/Greek/character01/0001_02.png", "not a picture")
    message = fault(copy, tmp_path / "cache")
    assert (
        f"1 of 2,056 pictures cannot be decoded, the first is {archive}/images_background/Greek/character01/0001_02.png"
        in message
    )


def test_seed_out_of_range(archives, tmp_path):
    assert "--data.split_seed is -1" in fault(archives, tmp_path, split_protocol="random_1200_423", split_seed=-1)


@pytest.mark.slow
def test_real_data(real_data, tmp_path, monkeypatch):
    data = ready(real_data, tmp_path, split_protocol="background_evaluation")
    monkeypatch.setattr("datamodules.files.pictures.decode", lambda *_: pytest.fail("decoded again"))
    assert ready(real_data, tmp_path, split_protocol="background_evaluation").manifest_hash == data.manifest_hash
    assert len(data.class_names("test")) == 659
    assert len(data.class_names("train")) + 4 * len(data.class_names("val")) == 964 * 4
    assert_disjoint(data)
    alphabets = [{name.split("/")[0] for name in data.class_names(split)} for split in SPLITS]
    assert [len(names) for names in alphabets] == [25, 5, 20] and len(set.union(*alphabets)) == 50
    for split in data._splits.values():
        assert (split.counts == 20).all()
        assert 10 < split.images.mean() < 40  # ink is white and rare
