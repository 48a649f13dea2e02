import os
import shutil
import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from app.errors import InputError
from datamodules.files.pictures import Square, to_pixels
from datamodules.image_folder import ImageFolder

SPLITS = ("train", "val", "test")
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (10, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def fill(folder: Path, classes: int = 10, pictures: int = 3) -> Path:
    """Classes a, b, c, ... of plain pictures, each of its own colour."""
    for label in range(classes):
        for number in range(pictures):
            save(folder / chr(ord("a") + label) / f"{number}.png", (20 * label, number, 0))
    return folder


def fill_splits(folder: Path) -> Path:
    """Two classes in each of train, val and test."""
    for number, split in enumerate(SPLITS):
        for label in ("one", "two"):
            for picture in range(3):
                save(folder / split / f"{split}_{label}" / f"{picture}.png", (50 * number, picture, len(label)))
    return folder


def pack(folder: Path, archive: Path, above: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, f"{above}{path.relative_to(folder)}")
    return archive


def ready(path: Path, cache_dir: Path, **options) -> ImageFolder:
    data = ImageFolder(path=str(path), cache_dir=str(cache_dir), **({"image_size": 8, "ways": 2, "queries": 1} | options))
    data.prepare_data()
    data.setup()
    return data


def fault(path: Path, **options) -> str:
    cache_dir = path.parent / "cache"
    with pytest.raises(InputError) as error:
        ready(path, cache_dir, **options)
    assert "\n" not in str(error.value)
    assert not cache_dir.exists()
    return str(error.value)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_three_folders_are_the_splits(tmp_path):
    data = ready(fill_splits(tmp_path / "data"), tmp_path / "cache")
    data.check()
    assert data.input_shape == (3, 8, 8)
    for number, split in enumerate(SPLITS):
        assert data.class_names(split) == [f"{split}_one", f"{split}_two"]
        images = data._splits[split].images
        assert images.shape == (6, 3, 8, 8) and images.dtype == np.uint8
        assert (images[:, 0] == 50 * number).all()
        assert images[:, 1, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    episode = data.episode("test", 0)
    assert episode.support_x.shape == (2, 3, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(episode, data.episode("test", 0), strict=True))


def test_classes_side_by_side_are_dealt_by_fractions_and_seed(tmp_path):
    folder = fill(tmp_path / "data")
    data = ready(folder, tmp_path / "cache")
    names = {split: data.class_names(split) for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [6, 2, 2]
    assert sorted(name for split in SPLITS for name in names[split]) == list("abcdefghij")
    # From numpy's frozen RandomState: a change here means other test classes than in every earlier run.
    assert names["test"] == ["a", "f"]
    for split in SPLITS:
        assert names[split] == sorted(names[split])
        assert data._splits[split].images[::3, 0, 0, 0].tolist() == [20 * (ord(name) - ord("a")) for name in names[split]]
    other = ready(folder, tmp_path / "cache", split_seed=3)
    assert other.class_names("test") != names["test"] and other.manifest_hash != data.manifest_hash
    halves = ready(folder, tmp_path / "cache", split_fractions=(0.5, 0.3, 0.2))
    assert [len(halves.class_names(split)) for split in SPLITS] == [5, 3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [fill, fill_splits])
@pytest.mark.parametrize("above", ["", "my pictures/", "a/b/"])
def test_archive_is_the_same_data_as_its_folder(tmp_path, layout, above):
    folder = layout(tmp_path / "data")
    archive = pack(folder, tmp_path / "data.zip", above)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as file:
        file.extractall(unpacked)
    hashes = {ready(path, tmp_path / "cache").manifest_hash for path in (folder, archive, unpacked)}
    assert len(hashes) == 1


def test_hidden_and_other_files_are_left_out(tmp_path):
    folder = fill(tmp_path / "data")
    clean = ready(folder, tmp_path / "cache").manifest_hash
    for name in (".DS_Store", "Thumbs.db", "readme.txt", "a/._0.png", "a/Thumbs.db", ".git/x.png", "__MACOSX/a/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    assert ready(pack(folder, tmp_path / "data.zip"), tmp_path / "cache").manifest_hash == clean
    (folder / "a" / ".#notes").symlink_to("a-lock-of-an-editor")
    (folder / "a" / "notes").symlink_to("lost")
    assert ready(folder, tmp_path / "cache").manifest_hash == clean


def test_other_folders_beside_the_splits_are_left_out(tmp_path):
    folder = fill_splits(tmp_path / "data")
    clean = ready(folder, tmp_path / "cache").manifest_hash
    save(folder / "unlabelled" / "0.png", RED)
    assert ready(folder, tmp_path / "cache").manifest_hash == clean


def test_linked_class_folder(tmp_path):
    folder = fill(tmp_path / "data")
    shutil.move(folder / "a", tmp_path / "elsewhere")
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    data = ready(folder, tmp_path / "cache")
    assert any("a" in data.class_names(split) for split in SPLITS)


def test_cache_is_reused_until_a_picture_or_an_option_changes(tmp_path, monkeypatch):
    folder, cache = fill(tmp_path / "data"), tmp_path / "cache"
    first = ready(folder, cache)
    with monkeypatch.context() as patch:
        patch.setattr("datamodules.files.pictures.decode", lambda *_: pytest.fail("decoded again"))
        assert ready(folder, cache).manifest_hash == first.manifest_hash
    save(folder / "a" / "0.png", BLUE)
    assert ready(folder, cache).manifest_hash != first.manifest_hash
    assert ready(folder, cache, image_size=9).input_shape == (3, 9, 9)
    assert ready(folder, cache, channels=1)._splits["train"].images.shape[1:] == (1, 8, 8)


def test_setup_without_prepare_data_builds_the_cache(tmp_path):
    data = ImageFolder(path=str(fill(tmp_path / "data")), cache_dir=str(tmp_path / "cache"), image_size=8, ways=2)
    data.setup()
    assert data._splits["train"].images.shape == (18, 3, 8, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM"])
def test_formats(kind):
    pixels = to_pixels(encoded(Image.new("RGB", (30, 20), BLUE), kind), Square(8, 3))
    assert pixels.shape == (3, 8, 8) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.array(BLUE)[:, None, None]).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_modes(mode):
    red = Image.new("RGB", (10, 10), RED)
    if mode == "I;16":
        grey = 76
        image = Image.fromarray(np.full((10, 10), 257 * grey, np.uint16))
    else:
        image = red.convert("L").point(lambda _: 255).convert("1") if mode == "1" else red.convert(mode)
    pixels = to_pixels(
        encoded(image, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {})),
        Square(4, 3),
    )
    expected = {"1": (255,) * 3, "P": RED, "RGB": RED, "RGBA": RED, "CMYK": RED}.get(mode, (76,) * 3)
    assert np.abs(pixels.astype(int) - np.array(expected)[:, None, None]).max() <= 3
    assert to_pixels(encoded(red), Square(4, 1)).shape == (1, 4, 4)


RAMP = np.linspace(0, 1, 16).reshape(4, 4)


def deep(white: float, dtype: str) -> bytes:
    """A picture of 16 greys whose file does not say which value is white."""
    return encoded(Image.fromarray((RAMP * white).round(0 if white > 1 else 9).astype(dtype)), "TIFF")


@pytest.mark.parametrize(
    "white, dtype",
    [
        (255, "uint16"),
        (255, "int32"),
        (255, "float32"),
        (4095, "uint16"),
        (4095, "int32"),
        (65535, "uint16"),
        (65535, "int32"),
        (65535, "float32"),
        (1, "float32"),
    ],
)
def test_more_than_8_bits_are_never_black(white, dtype):
    assert np.array_equal(to_pixels(deep(white, dtype), Square(4, 1))[0], np.rint(255 * RAMP))


@pytest.mark.parametrize(
    "white, dtype, words",
    [
        (65536, "int32", "its pixels go from 0 to 65536"),
        (-255, "float32", "its pixels go from -255 to "),
        (1.5, "float32", "its highest pixel is 2"),
        (0.003, "float32", "its highest pixel is 0.003"),
        (np.nan, "float32", "it has pixels that are not finite"),
    ],
)
def test_pixels_without_a_scale_are_refused(white, dtype, words, tmp_path):
    data = deep(white, dtype)
    with pytest.raises(ValueError, match=words):
        to_pixels(data, Square(4, 1))
    (fill(tmp_path / "data") / "a" / "deep.tiff").write_bytes(data)
    assert words in fault(tmp_path / "data")


def colours_of_16_bits(highest: int, transparent: bool = False) -> bytes:
    """A PNG, which Pillow does not write."""
    values = np.linspace(0, highest, 4 * (3 + transparent)).astype(int)
    lines = b"\0" + struct.pack(f">{len(values)}H", *values)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 6 if transparent else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(4 * lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_colours_of_16_bits():
    assert to_pixels(colours_of_16_bits(65535), Square(4, 3)).max() == 255
    for highest in (0, 255, 4095):  # of the first two Pillow keeps the same
        with pytest.raises(ValueError, match="the upper 4 are not used"):
            to_pixels(colours_of_16_bits(highest), Square(4, 3))
    assert not to_pixels(encoded(Image.new("RGB", (4, 4))), Square(4, 3)).any()  # of 8 bits, black is black
    assert (to_pixels(colours_of_16_bits(0, transparent=True), Square(4, 3)) == 255).all()


def test_a_pgm_says_which_grey_is_white():
    for grey, expected in ((50, 12), (200, 50), (1023, 255)):
        file = b"P5 4 4 1023 " + struct.pack(">16H", *[grey] * 16)
        assert (to_pixels(file, Square(4, 1)) == expected).all()


def test_transparency_is_white():
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert (to_pixels(encoded(clear), Square(4, 3)) == 255).all()
    assert (to_pixels(encoded(clear.convert("LA")), Square(4, 1)) == 255).all()
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0])
    assert (to_pixels(encoded(palette, transparency=0), Square(4, 3)) == 255).all()


def test_pictures_are_turned_upright():
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera turned by 90 degrees: the file holds the scene turned counterclockwise
    turned = Image.fromarray(np.rot90(upright).copy())
    assert np.array_equal(to_pixels(encoded(turned, exif=exif), Square(16, 3)), upright.transpose(2, 0, 1))


def test_resizing_is_antialiased_and_fills_the_square():
    stripes = np.zeros((40, 400), np.uint8)
    stripes[:, ::2] = 255
    pixels = to_pixels(encoded(Image.fromarray(stripes)), Square(8, 1))
    assert pixels.min() > 120 and pixels.max() < 136
    photograph = Image.fromarray(np.tile(np.linspace(0, 255, 2000).astype(np.uint8), (1500, 1)))
    pixels = to_pixels(encoded(photograph, "JPEG"), Square(8, 1))  # decoded at 1/8, still over the whole width
    assert np.abs(pixels[0].mean(axis=0) - np.linspace(16, 239, 8)).max() < 4


def test_missing_path(tmp_path):
    assert f"--data.path {tmp_path / 'data'} does not exist" in fault(tmp_path / "data")


def test_file_that_is_no_archive(tmp_path):
    (tmp_path / "data.zip").write_text("hello")
    assert f"{tmp_path / 'data.zip'} (5 bytes) is not a .zip archive" in fault(tmp_path / "data.zip")


def test_archive_cut_short(tmp_path):
    archive = pack(fill(tmp_path / "data"), tmp_path / "data.zip")
    archive.write_bytes(archive.read_bytes()[:1000])
    assert f"{archive} (1,000 bytes) is a .zip archive cut short" in fault(archive)


@pytest.mark.parametrize("name", ["../../out.png", "/out.png", "a/../../out.png", "..\\out.png"])
def test_archive_that_names_files_outside_of_it(tmp_path, name):
    archive = pack(fill(tmp_path / "data"), tmp_path / "data.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"")
    assert "which lies outside of it; do not trust it, replace or remove it, or change --data.path" in fault(archive)


def test_archive_with_a_damaged_picture(tmp_path):
    archive = pack(fill(tmp_path / "data"), tmp_path / "data.zip")
    data = bytearray(archive.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 255
    archive.write_bytes(data)
    message = fault(archive)
    assert f"pictures cannot be decoded, the first is {archive}/" in message and "Bad CRC-32" in message


@pytest.mark.parametrize("content", [b"", b"not a picture", encoded(Image.radial_gradient("L"), "JPEG")[:2000]])
def test_corrupt_picture_is_named(tmp_path, content):
    folder = fill_splits(tmp_path / "data")
    (folder / "train" / "train_two" / "9.jpg").write_bytes(content)
    message = fault(folder)
    assert f"1 of 7 pictures cannot be decoded, the first is {folder}/train/train_two/9.jpg (" in message
    assert message.endswith("; replace or remove it, or change --data.path")


def test_a_camera_format_is_named(tmp_path):
    """Instead of being overlooked."""
    folder = fill_splits(tmp_path / "data")
    (folder / "train" / "train_two" / "IMG_9.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert "train_two/IMG_9.HEIC (a format that is not read; save it as JPEG or PNG); replace or remove it" in fault(folder)


def test_no_pictures(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.txt").touch()
    message = fault(tmp_path / "data")
    assert f"--data.path {tmp_path / 'data'} holds no pictures; put files such as PNG or JPEG" in message


def test_one_class(tmp_path):
    message = fault(fill(tmp_path / "data", classes=1))
    assert "has 1 class, 'a'; give at least 2 to each of train, val and test" in message


def test_few_classes_are_dealt_so_that_there_are_tasks(tmp_path):
    folder = fill(tmp_path / "data", classes=7)
    data = ready(folder, tmp_path / "kept", ways=2, queries=1)
    assert [len(data.class_names(split)) for split in SPLITS] == [3, 2, 2]
    data.check()
    message = fault(folder, ways=5)
    assert "has 7 classes, tasks of --data.ways 5 need 15" in message and "give --data.ways 2" in message
    folds = [ready(folder, tmp_path / "kept", ways=2, folds=3, fold=fold) for fold in range(3)]
    assert sorted(name for fold in folds for name in fold.class_names("test")) == list("abcdefg")
    for fold in folds:
        assert sorted(name for split in SPLITS for name in fold.class_names(split)) == list("abcdefg")
    assert "--data.fold is 3; give --data.fold 0 to 2" in fault(folder, folds=3, fold=3)


def test_too_few_classes_for_the_fractions(tmp_path):
    message = fault(fill(tmp_path / "data", classes=3), split_fractions=(0.64, 0.16, 0.2))
    assert "--data.split_fractions 0.64 / 0.16 / 0.2 deal the 3 classes" in message and "as 2 / 0 / 1 to train" in message


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (1.2, -0.4, 0.2), (1.0, 0.0, 0.0), (float("nan"), 0.5, 0.5)])
def test_wrong_fractions(tmp_path, fractions):
    message = fault(tmp_path / "data", split_fractions=fractions)
    assert f"--data.split_fractions {' / '.join(map(str, fractions))} sum to" in message


def test_wrong_size_and_seed(tmp_path):
    assert "--data.image_size is 0; give at least 1" in fault(tmp_path / "data", image_size=0)
    assert "--data.split_seed is -1; give 0 to 4294967295" in fault(fill(tmp_path / "data"), split_seed=-1)


@pytest.mark.parametrize("archive", [False, True])
def test_empty_class_is_named(tmp_path, archive):
    folder = fill(tmp_path / "data")
    (folder / "zebra").mkdir()
    message = fault(pack(folder, tmp_path / "data.zip") if archive else folder)
    assert "1 of the 11 classes in --data.path" in message and "the first is 'zebra'" in message


@pytest.mark.parametrize("archive", [False, True])
def test_missing_split(tmp_path, archive):
    folder = fill_splits(tmp_path / "data")
    shutil.rmtree(folder / "val")
    message = fault(pack(folder, tmp_path / "data.zip") if archive else folder)
    assert "has these classes: 2 in train, 0 in val, 2 in test; add" in message


def test_class_in_two_splits(tmp_path):
    folder = fill_splits(tmp_path / "data")
    shutil.copytree(folder / "train" / "train_one", folder / "test" / "train_one")
    assert "has 1 of its classes both in train and in test, the first is 'train_one'" in fault(folder)


def test_picture_outside_class_folders(tmp_path):
    folder = fill(tmp_path / "data")
    save(folder / "stray.png", RED)
    assert f"{folder}/stray.png is in no class folder; move it to {folder}/<class>/" in fault(folder)
    (folder / "stray.png").unlink()
    save(folder / "a" / "deep" / "0.png", GREEN)
    assert f"{folder}/a/deep/0.png is too deep; move it to {folder}/<class>/" in fault(folder)


def test_pictures_right_inside_the_splits(tmp_path):
    for split in SPLITS:
        save(tmp_path / "data" / split / "0.png", RED)
    assert "data/train/0.png is in no class folder" in fault(tmp_path / "data")


@pytest.mark.slow
def test_real_data(tmp_path, monkeypatch):
    path = (
        Path(os.environ.get("META_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data")
        / "caltech101_84"
        / "caltech101_84.zip"
    )
    if not path.exists():
        pytest.skip(f"no {path}: put a .zip of pictures, {{train,val,test}}/<class>/<picture>, there, or set META_DATA_DIR")
    data = ready(path, tmp_path, image_size=84)
    monkeypatch.setattr("datamodules.files.pictures.decode", lambda *_: pytest.fail("decoded again"))
    assert ready(path, tmp_path, image_size=84).manifest_hash == data.manifest_hash
    assert [len(data.class_names(split)) for split in SPLITS] == [63, 16, 20]
    assert [len(data._splits[split].images) for split in SPLITS] == [5659, 1016, 1132]
    assert data._splits["val"].images.shape[1:] == (3, 84, 84)


def test_a_picture_is_one_by_its_content(tmp_path, capsys):
    folder = fill(tmp_path / "data")
    plain = Image.new("RGB", (10, 12), RED)
    for name, kind in (("x.jpe", "JPEG"), ("x.tga", "TGA"), ("x.jp2", "JPEG2000"), ("x", "PNG"), ("x.txt", "WEBP")):
        plain.save(folder / "a" / name, kind)
    (folder / "a" / "notes.md").write_text("no picture")
    (folder / "a" / "notes").write_bytes(b"")
    data = ready(folder, tmp_path / "cache")
    (number,) = (data._splits[split].counts for split in SPLITS if "a" in data.class_names(split))
    assert number[0] == 8
    assert "2 files are no pictures and left out, the first is a/notes" in capsys.readouterr().out


def test_too_large_a_picture_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.files.pictures.PIXELS", 100)
    assert "it has 120 pixels, more than the 100 that a picture may have" in fault(fill(tmp_path / "data"))


def test_long_metadata_is_no_fault(tmp_path):
    folder, texts = fill(tmp_path / "data"), PngImagePlugin.PngInfo()
    texts.add_text("history", "x" * 2_000_000, zip=True)
    Image.new("RGB", (10, 12)).save(folder / "a" / "0.png", pnginfo=texts)
    ready(folder, tmp_path / "cache")


@pytest.mark.parametrize("names", [("Train", "valid", "TEST"), ("training", "Validation", "testing")])
def test_other_names_of_the_splits(tmp_path, names):
    folder = fill_splits(tmp_path / "data")
    for split, name in zip(SPLITS, names, strict=True):
        (folder / split).rename(folder / f"_{name}").rename(folder / name)
    assert ready(folder, tmp_path / "kept").class_names("val") == ["val_one", "val_two"]
    shutil.copytree(folder / names[1], folder / "dev")
    assert "holds two folders for val" in fault(folder)


def test_a_folder_of_images_in_every_class(tmp_path):
    folder, plain = tmp_path / "data", fill(tmp_path / "plain")
    for label in plain.iterdir():
        shutil.copytree(label, folder / label.name / "images")
    assert ready(folder, tmp_path / "kept").manifest_hash == ready(plain, tmp_path / "kept").manifest_hash
    save(folder / "a" / "0.png", RED)
    assert "too deep" in fault(folder)


def test_backslashes_in_an_archive(tmp_path):
    folder = fill(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        for path in folder.rglob("*.png"):
            file.write(path, f"data\\{path.parent.name}\\{path.name}")
    assert ready(tmp_path / "data.zip", tmp_path / "cache").manifest_hash == ready(folder, tmp_path / "cache").manifest_hash


def test_names_that_are_not_utf8(tmp_path):
    folder = fill(tmp_path / "data")
    os.rename(os.fsencode(folder / "a"), os.fsencode(folder) + b"/caf\xe9")
    names = [name for split in SPLITS for name in ready(folder, tmp_path / "cache").class_names(split)]
    assert "caf\\xe9" in names and "\n".join(names).encode()
