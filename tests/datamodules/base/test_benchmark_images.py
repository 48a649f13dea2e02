"""The standard benchmarks, read from small files in their publishers' formats."""

import ast
import json
import shutil
import tracemalloc
import warnings
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from helpers.benchmark_files import CLASSES, IMAGES, NUM_CLASSES, WRITERS, colour, dump, listed, mini_imagenet, plain, publish

from app.errors import InputError
from datamodules.base.benchmark_images import BenchmarkImages, listed_split
from datamodules.cifar_fs import CIFARFS
from datamodules.cub200 import CUB200
from datamodules.describable_textures import DescribableTextures
from datamodules.fc100 import FC100
from datamodules.fgvc_aircraft import FGVCAircraft
from datamodules.files.image_cache import ImageSource, cached_images, in_order
from datamodules.files.image_split import SPLITS
from datamodules.mini_imagenet import MiniImagenet
from datamodules.quickdraw import Quickdraw
from datamodules.tiered_imagenet import TieredImagenet
from datamodules.vgg_flower102 import VGGFlower102

BENCHMARKS = pytest.mark.parametrize("cls", WRITERS, ids=lambda cls: cls.__name__)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[type, Path]:
    """The files of every benchmark, archives packed."""
    return {cls: publish(cls, tmp_path_factory.mktemp(cls.__name__)) for cls in WRITERS}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for cls, classes in NUM_CLASSES.items():
        monkeypatch.setattr(cls, "num_classes", classes)
    for cls in WRITERS:
        if cls.num_images:
            monkeypatch.setattr(cls, "num_images", IMAGES * sum(cls.num_classes))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def download_url(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)


@pytest.fixture
def network(published, monkeypatch) -> list[str]:
    """Has every file of the benchmarks; the addresses that were asked for."""
    asked = []

    def download_url(url: str, root: str, filename: str, md5: str | None) -> None:
        asked.append(url)
        (path,) = [folder / filename for folder in published.values() if (folder / filename).is_file()]
        shutil.copy(path, root)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    return asked


def ready(cls: type[BenchmarkImages], data_dir: Path, **options) -> BenchmarkImages:
    data = cls(data_dir=str(data_dir), cache_dir=str(data_dir.parent / "cache"), **{"ways": 2, "queries": 2} | options)
    data.prepare_data()
    data.setup()
    return data


def fault(cls: type[BenchmarkImages], data_dir: Path, **options) -> str:
    with pytest.raises(InputError) as error:
        ready(cls, data_dir, **options)
    assert "\n" not in str(error.value)
    assert not list((data_dir.parent / "cache").glob("*"))
    return str(error.value)


def copied(published: dict[type, Path], cls: type, folder: Path) -> Path:
    shutil.rmtree(folder / "data", ignore_errors=True)
    return Path(shutil.copytree(published[cls], folder / "data", ignore=shutil.ignore_patterns("unpacked")))


def number_of(cls: type, name: str, split: str) -> int:
    """Of a class in the colours of the files."""
    first = sum(CLASSES[: SPLITS.index(split)])
    if cls in (MiniImagenet, CIFARFS):
        return first + int(name[-3:])
    if cls is TieredImagenet:
        assert name.startswith(f"{split} ") and name.endswith("crane")
        return first + int(name.split()[1])
    if cls is FC100:
        return int(name.removeprefix(f"{split} "))
    if cls is CUB200:
        return int(name[:3]) - 1
    return int(name) if name.isdigit() else listed(WRITERS[cls].__name__).index(name)


def assert_whole(data: BenchmarkImages) -> None:
    """Every class has its own pictures, in the split that is published."""
    cls = type(data)
    assert tuple(len(data.class_names(split)) for split in SPLITS) == cls.num_classes
    for split in SPLITS:
        images, names = data._splits[split].images, data.class_names(split)
        assert images.shape == (IMAGES * len(names), *data.input_shape) and images.dtype == np.uint8
        for row, image in enumerate(images):
            number = number_of(cls, names[row // IMAGES], split)
            if cls is Quickdraw:
                assert image[0, 5, 5] == number % 256 and image[0, 0, 0] == number // 256
            else:
                assert np.abs(image.astype(int) - np.array(colour(number))[:, None, None]).max() < 8
    data.check()
    episode = data.episode("test", 0)
    assert episode.support_x.shape == (2, *data.input_shape)


@pytest.mark.slow
@BENCHMARKS
def test_reads_the_publishers_files(cls, published, tmp_path, monkeypatch):
    data = ready(cls, copied(published, cls, tmp_path))
    assert_whole(data)
    monkeypatch.setattr(cls, "sources", lambda *_: pytest.fail("decoded again"))
    again = ready(cls, tmp_path / "data")
    assert again.manifest_hash == data.manifest_hash


@pytest.mark.parametrize("cls", [cls for cls in WRITERS if any(file.contents for file in cls.published)])
def test_reads_unpacked_archives(cls, published, tmp_path):
    WRITERS[cls](tmp_path / "data" / cls.folder)  # where learn2learn unpacks them
    assert_whole(ready(cls, tmp_path / "data"))


@pytest.mark.slow
@BENCHMARKS
def test_what_is_absent_is_downloaded_once(cls, network, tmp_path):
    data = ready(cls, tmp_path / "data")
    assert_whole(data)
    assert network == [file.url for file in cls.published]
    ready(cls, tmp_path / "data")
    assert len(network) == len(cls.published)
    assert sorted(path.name for path in (tmp_path / "data" / cls.folder).iterdir()) == sorted(f.name for f in cls.published)


@pytest.mark.slow
@BENCHMARKS
def test_a_download_that_was_broken_off(cls, published, tmp_path, request):
    data_dir = copied(published, cls, tmp_path)
    path = max((data_dir / file.name for file in cls.published), key=lambda path: path.stat().st_size)
    size = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:size])
    message = fault(cls, data_dir)
    assert message.startswith(f"{path} ({size:,} bytes) ") and "its download failed" in message
    (url,) = [file.url for file in cls.published if file.name == path.name]
    assert message.endswith(f"; get {url} and put it into {data_dir / cls.folder}")
    network = request.getfixturevalue("network")
    assert_whole(ready(cls, data_dir))
    assert [url.rsplit("/")[-1].endswith(path.name.split("/")[-1].replace(" ", "%20")) for url in network] == [True]


def test_a_download_that_brings_something_else_twice(published, tmp_path, monkeypatch):
    data_dir = copied(published, CUB200, tmp_path)
    archive = data_dir / "CUB_200_2011.tgz"
    archive.write_text("<html>404</html>")

    def download_url(url: str, root: str, filename: str, md5: str | None) -> None:
        (Path(root) / filename).write_text("<html>moved</html>")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    message = fault(CUB200, data_dir)
    assert message.startswith(f"{archive} (18 bytes) is not a whole archive") and "and so it was downloaded; get https" in message


@pytest.mark.parametrize("protocol", ["python2", 0, 4, 5])
@pytest.mark.parametrize("cls", [MiniImagenet, TieredImagenet, FC100])
def test_pickles_of_every_python(cls, protocol, tmp_path):
    WRITERS[cls](tmp_path / "data", protocol)
    assert_whole(ready(cls, tmp_path / "data"))


class Harmful:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(MiniImagenet, "mini-imagenet-cache-test.pkl"), (TieredImagenet, "val_labels.pkl"), (FC100, "FC100_val.pickle")],
)
def test_a_pickle_that_would_run_something(cls, name, tmp_path, network):
    WRITERS[cls](tmp_path / "data")
    dump({"image_data": Harmful(tmp_path / "touched")}, tmp_path / "data" / name)
    message = fault(cls, tmp_path / "data")
    assert "a file that should hold arrays asks for " in message and "do not trust it" in message
    assert not (tmp_path / "touched").exists() and not network


@pytest.mark.parametrize("cls", [MiniImagenet, TieredImagenet, FC100, CIFARFS, CUB200, FGVCAircraft, DescribableTextures])
def test_a_wrong_number_of_pictures(cls, published, tmp_path, monkeypatch):
    monkeypatch.setattr(cls, "num_images", cls.num_images + 1)
    counts = ", ".join(f"{IMAGES * count:,} in {split}" for split, count in zip(SPLITS, cls.num_classes, strict=True))
    message = fault(cls, copied(published, cls, tmp_path))
    assert f"{cls.__name__} in --data.data_dir {tmp_path / 'data'} holds" in message
    assert f"{cls.num_images - 1:,} pictures ({counts}) instead of {cls.num_images:,}; get " in message


def test_a_wrong_number_of_classes(published, tmp_path, monkeypatch):
    monkeypatch.setattr(MiniImagenet, "num_classes", (4, 16, 3))
    message = fault(MiniImagenet, copied(published, MiniImagenet, tmp_path))
    assert (
        "holds 2 classes in val instead of 16; get https://" in message
        and "train.pkl and the 2 others and put them into" in message
    )


def test_a_class_in_two_splits(tmp_path):
    mini_imagenet(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet-cache-validation.pkl"
    images = np.zeros((2 * IMAGES, 84, 84, 3), np.uint8)
    dump({"image_data": images, "class_dict": {"n1001": list(range(3)), "n2002": [3, 4, 5]}}, path)
    assert "holds class 'n2002' both in val and in test; get" in fault(MiniImagenet, tmp_path / "data")


@pytest.mark.parametrize(
    ("cls", "lost", "named"),
    [
        (
            MiniImagenet,
            "mini-imagenet-cache-validation.pkl",
            "has no mini-imagenet-cache-validation.pkl, and its download failed",
        ),
        (TieredImagenet, "test_labels.pkl", "has no test_labels.pkl, and its download failed"),
        (FC100, "FC100_val.pickle", "has no FC100_val.pickle, and its download failed"),
        (CIFARFS, "cifar100/splits/bertinetto/val.txt", "val.txt, the val classes, is missing; get https://zenodo"),
        (CUB200, "CUB_200_2011/images/012.Bird", "holds 2 classes in test instead of 3; get https://zenodo"),
        (
            FGVCAircraft,
            "fgvc-aircraft-2013b/data/images_variant_val.txt",
            "images_variant_val.txt, which names the aircraft of a third of the pictures, is missing; get https://www",
        ),
        (
            DescribableTextures,
            "dtd/images/grid",
            "1 of the 7 val classes of DescribableTextures have no pictures in --data.data_dir",
        ),
        (Quickdraw, "ant.npy", "has no ant.npy, and its download failed"),
    ],
)
def test_a_missing_split(cls, lost, named, tmp_path):
    WRITERS[cls](tmp_path / "data" / cls.folder)
    path = tmp_path / "data" / cls.folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = fault(cls, tmp_path / "data")
    assert named in message and f"into {tmp_path / 'data' / cls.folder}" in message


def test_a_picture_that_is_none(tmp_path):
    WRITERS[CUB200](tmp_path / "data")
    path = tmp_path / "data" / "CUB_200_2011" / "images" / "002.Bird" / "Bird_0001.jpg"
    path.write_text("nothing")
    message = fault(CUB200, tmp_path / "data")
    assert f"1 of 9 pictures cannot be decoded, the first is {path} (not an image); get https://" in message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"image_data": np.zeros((2, 84, 84), np.uint8), "class_dict": {"a": [0, 1]}}, "does not hold images as uint8"),
        ({"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"a": [0, 2]}}, "labels of more than its 2 images"),
        ([1], "does not hold image_data and class_dict"),
    ],
)
def test_a_pickle_of_something_else(content, named, tmp_path):
    mini_imagenet(tmp_path / "data")
    dump(content, tmp_path / "data" / "mini-imagenet-cache-train.pkl")
    assert named in fault(MiniImagenet, tmp_path / "data")


def test_labels_of_more_pictures_than_there_are(tmp_path):
    WRITERS[TieredImagenet](tmp_path / "data")
    path = tmp_path / "data" / "val_images_png.pkl"
    dump([np.frombuffer(plain(4, 84), np.uint8)] * (2 * IMAGES - 1), path)
    assert f"{path}" in (message := fault(TieredImagenet, tmp_path / "data")) and "there are 6 labels" in message


@pytest.mark.parametrize("cls", [MiniImagenet, TieredImagenet, CUB200, Quickdraw], ids=lambda cls: cls.__name__)
def test_other_sizes_and_channels(cls, published, tmp_path):
    shape = (4 - cls.native_shape[0], 10, 10)
    data = ready(cls, copied(published, cls, tmp_path), image_size=10, channels=shape[0])
    assert data.input_shape == shape == data._splits["test"].images.shape[1:]
    if cls is not Quickdraw:
        assert_whole(ready(cls, tmp_path / "data", image_size=12))


def test_a_few_drawings_of_each_class(published, tmp_path):
    data = ready(Quickdraw, copied(published, Quickdraw, tmp_path), images_per_class=2, queries=1)
    assert set(data._splits["train"].counts) == {2}
    assert data.manifest_hash != ready(Quickdraw, tmp_path / "data", images_per_class=3).manifest_hash


def test_blocks_in_any_order_make_one_array(tmp_path, monkeypatch):
    """Pictures that are not class after class, and more than are decoded together."""
    WRITERS[TieredImagenet](tmp_path / "data")
    whole = ready(TieredImagenet, tmp_path / "data")
    monkeypatch.setattr("datamodules.files.pictures.TOGETHER", 2)
    shutil.rmtree(tmp_path / "cache")
    assert ready(TieredImagenet, tmp_path / "data").manifest_hash == whole.manifest_hash


def test_memory_holds_a_block_at_a_time(tmp_path):
    def sources(_) -> dict[str, ImageSource]:
        blocks = (np.full((1000, 1, 32, 32), number, np.uint8) for number in range(40))
        none = np.zeros((1, 1, 32, 32), np.uint8)
        rest = {split: ImageSource([split], [1], in_order([none])) for split in ("val", "test")}
        return {"train": ImageSource(["a", "b"], [1000, 39_000], in_order(blocks)), **rest}

    tracemalloc.start()
    try:
        images = cached_images(str(tmp_path), "blocks", "key", (1, 32, 32), sources)["train"].images
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.nbytes == 40_000 * 1024 and (images[:, 0, 0, 0].reshape(40, 1000) == np.arange(40)[:, None]).all()
    assert peak < 16 * 2**20


@pytest.fixture(scope="module")
def l2l():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("learn2learn.vision.datasets", reason="learn2learn 0.2.0 is not installed: uv sync")


LEARN2LEARN = {  # name and folder there
    MiniImagenet: ("MiniImagenet", ""),
    TieredImagenet: ("TieredImagenet", "tiered-imagenet"),
    FC100: ("FC100", ""),
    CIFARFS: ("CIFARFS", "cifarfs"),
    VGGFlower102: ("VGGFlower102", "vgg_flower102"),
    DescribableTextures: ("DescribableTextures", "describable_textures"),
    Quickdraw: ("Quickdraw", "quickdraw"),
}


@pytest.mark.parametrize("cls", LEARN2LEARN, ids=lambda cls: cls.__name__)
def test_the_same_pictures_as_learn2learns(cls, l2l, tmp_path):
    """The same classes with the same pixels in every split, read by its own program."""
    name, folder = LEARN2LEARN[cls]
    WRITERS[cls](tmp_path / "data" / folder)
    data = ready(cls, tmp_path / "data", image_size=20 if cls in (VGGFlower102, DescribableTextures) else None)
    for split in SPLITS:
        theirs: dict[int, list[bytes]] = {}
        published = getattr(l2l, name)(root=str(tmp_path / "data"), mode="validation" if split == "val" else split)
        for image, label in map(published.__getitem__, range(len(published))):
            pixels = np.asarray(image)
            pixels = pixels if cls is MiniImagenet else np.atleast_3d(pixels).transpose(2, 0, 1)
            theirs.setdefault(label, []).append(pixels.astype(np.uint8).tobytes())
        ours = data._splits[split]
        classes = [sorted(map(bytes, part)) for part in np.split(ours.images, np.cumsum(ours.counts)[:-1])]
        assert sorted(classes) == sorted(map(sorted, theirs.values()))


@pytest.mark.parametrize("name", ["fgvc_aircraft", "vgg_flower102", "describable_textures", "quickdraw"])
def test_class_splits_are_learn2learns(name):
    folder = Path(find_spec("learn2learn").submodule_search_locations[0]) / "vision" / "datasets"
    tree = ast.parse((folder / f"{name.replace('102', 's')}.py").read_text())
    (value,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SPLITS"
    ]
    wanted = {key.value: ast.literal_eval(part) for key, part in zip(value.keys, value.values, strict=True) if key.value != "all"}
    ours = listed_split(name)
    for split, names in ours.items():
        theirs = wanted.get("validation", wanted.get("valid")) if split == "val" else wanted[split]
        assert names == sorted(f"{label:03}" if isinstance(label, int) else label for label in theirs)


def test_the_split_of_cub_is_that_of_the_lists(data_dir):
    folder = data_dir / "splits" / "cub"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: put the lists of pytorch-meta there")
    lists = {split: json.loads((folder / f"{split}.json").read_text()) for split in SPLITS}
    ours = CUB200().class_split({}, [name for names in lists.values() for name in names])
    assert ours == {split: sorted(names) for split, names in lists.items()}
