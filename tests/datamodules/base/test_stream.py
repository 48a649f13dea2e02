"""What arrives when: a pure function of the seed and the options."""

import json

import numpy as np
import pytest
import torch
from helpers.streams import Patterns
from PIL import Image

from app.errors import InputError
from datamodules.class_stream import ClassStream
from datamodules.files.image_split import ImageSplit
from datamodules.files.labelled_images import LabelledImages
from datamodules.files.mnist import MNIST
from datamodules.permuted_mnist import PermutedMNIST
from datamodules.rotated_mnist import RotatedMNIST
from datamodules.split_mnist import SplitMNIST

COUNTS = {"train": 150, "val": 50, "test": 60}


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    """MNIST of random images, each of which holds its own number and its split."""

    def read_split(self: MNIST, split: str) -> LabelledImages:
        images = np.random.default_rng(len(split)).integers(0, 256, (COUNTS[split], 1, 28, 28), dtype=np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(len(images)), list(COUNTS).index(split)
        return LabelledImages(images, np.arange(len(images)) % 10, split)

    monkeypatch.setattr(MNIST, "prepare_data", lambda self: None)
    monkeypatch.setattr(MNIST, "read_split", read_split)


def ready(cls, **options):
    stream = cls(**options)
    stream.prepare_data()
    stream.setup()
    stream.check()
    return stream


def arriving(stream, cursors):
    return [stream.batch(cursor) for cursor in cursors]


@pytest.mark.parametrize("passes", [1, 2])
def test_every_sample_of_a_pass_arrives_once(passes):
    stream = ready(Patterns, passes=passes)
    assert stream.num_steps == 3 * passes * 4  # 22 images in batches of 6
    rows = {number: [] for number in range(3)}
    ends = []
    for cursor in range(stream.num_steps):
        place = stream.place(cursor)
        rows[place.experience].extend(place.rows)
        ends += [cursor] * place.last
        assert place.first == (cursor % (4 * passes) == 0)
    assert all(sorted(seen) == sorted([*range(22)] * passes) for seen in rows.values())
    assert ends == [4 * passes - 1, 8 * passes - 1, 12 * passes - 1]
    if passes == 2:
        assert rows[0][:22] != rows[0][22:]


def test_steps_do_not_depend_on_those_before():
    whole = arriving(ready(Patterns), range(12))
    for cursor in (11, 3, 9):
        one = ready(Patterns).batch(cursor)
        assert all(torch.equal(part, other) for part, other in zip(one, whole[cursor], strict=True))
    other = ready(Patterns, seed=1).batch(3)
    assert not torch.equal(other.images, whole[3].images)


def test_scenarios_are_views_of_one_stream():
    streams = {scenario: ready(SplitMNIST, scenario=scenario, batch_size=7) for scenario in ("class", "task", "domain")}
    assert {name: (stream.output_size, stream.has_task_ids) for name, stream in streams.items()} == {
        "class": (10, False),
        "task": (10, True),
        "domain": (2, False),
    }
    for cursor in (0, 5, 20):
        of_class, of_task, of_domain = (stream.batch(cursor) for stream in streams.values())
        assert torch.equal(of_class.images, of_task.images) and torch.equal(of_class.images, of_domain.images)
        assert torch.equal(of_class.y, of_task.y) and torch.equal(of_class.y % 2, of_domain.y)
        assert torch.equal(of_class.y // 2, of_class.task)


def test_the_manifest_tells_streams_apart():
    hashes = [ready(SplitMNIST, **options).manifest_hash for options in ({}, {"seed": 1}, {"scenario": "task"}, {"passes": 2})]
    assert len(set(hashes)) == 4 and ready(SplitMNIST).manifest_hash == hashes[0]
    manifest = json.loads(json.dumps(ready(SplitMNIST).manifest))
    assert [experience["classes"] for experience in manifest["experiences"]] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [experience["num_train"] for experience in manifest["experiences"]] == [40] * 5


def test_training_and_evaluation_images_of_mnist():
    official = ready(SplitMNIST, classes_per_experience=10)
    chosen = ready(SplitMNIST, classes_per_experience=10, evaluate_on="val")

    def sources(stream, split):
        images, _ = stream.samples(0, split)
        return len(images), sorted(images[:, 0, 0, 1].unique().tolist())

    assert (sources(official, "train"), sources(official, "test")) == ((200, [0, 1]), (60, [2]))
    assert (sources(chosen, "train"), sources(chosen, "test")) == ((150, [0]), (50, [1]))


def test_rotations_increase_and_turn_the_image():
    stream = ready(RotatedMNIST, num_experiences=4, train_images=30, test_images=20)
    assert all(45 * number <= angle < 45 * (number + 1) for number, angle in enumerate(stream.angles))
    images = np.zeros((1, 1, 28, 28), np.uint8)
    images[0, 0, 3, 14] = 255
    stream.__class__ = type("Quarter", (RotatedMNIST,), {"angles": np.array([0.0, 90.0, 0.0, 0.0])})
    assert np.array_equal(stream.change(0, images), images)
    assert np.array_equal(stream.change(1, images), np.rot90(images, 1, (2, 3)))  # against the clock, as PIL turns


def test_permutations_move_pixels_alone():
    stream = ready(PermutedMNIST, num_experiences=3, train_images=30, test_images=20)
    plain = ready(RotatedMNIST, num_experiences=3, train_images=30, test_images=20)
    rows = stream.rows(0, "train")
    assert np.array_equal(stream.read(0, "train")[0], plain._arrays["train"][0][rows])  # the first one stays as it is
    images = np.arange(784, dtype=np.uint32).reshape(1, 1, 28, 28)
    first, second = stream.change(1, images), stream.change(2, images)
    assert sorted(first.ravel()) == sorted(second.ravel()) == list(range(784)) and not np.array_equal(first, second)
    assert np.array_equal(first, ready(PermutedMNIST, num_experiences=3).change(1, images))


def test_experiences_have_images_of_their_own():
    stream = ready(RotatedMNIST, num_experiences=3, train_images=30, test_images=20)
    assert not np.array_equal(stream.rows(0, "train"), stream.rows(1, "train"))
    assert len(set(stream.rows(0, "train"))) == 30


def class_stream(monkeypatch, **options):
    def read_split(self, split):
        images = np.zeros((12 * 9, 1, 28, 28), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = np.repeat(np.arange(12), 9), np.tile(np.arange(9), 12)
        return ImageSplit(images, np.full(12, 9), [f"class {number}" for number in range(12)], split)

    for name in ("Glyphs", "Omniglot"):
        monkeypatch.setattr(f"datamodules.class_stream.{name}.read_split", read_split)
        monkeypatch.setattr(f"datamodules.class_stream.{name}.prepare_data", lambda self: None)
    return ready(ClassStream, **{"train_images": 6, "test_images": 3} | options)


def test_classes_come_one_after_the_other(monkeypatch):
    stream = class_stream(monkeypatch, num_classes=4, source="omniglot")
    batches = arriving(stream, range(stream.num_steps))
    assert torch.cat([batch.y for batch in batches]).tolist() == [number for number in range(4) for _ in range(6)]
    kinds = [int(batch.images[0, 0, 0, 0]) for batch in batches]
    assert kinds == np.repeat(stream.classes, 6).tolist() and len(set(kinds)) == 4
    for number in range(4):
        learned, held_out = (set(stream.samples(number, split).images[:, 0, 0, 1].tolist()) for split in ("train", "test"))
        assert len(learned) == 6 and len(held_out) == 3 and not learned & held_out
    assert not np.array_equal(stream.classes, class_stream(monkeypatch, num_classes=4, seed=1).classes)


def folder_of_pictures(folder, sizes):
    """Classes a, b, c, ... of so many pictures, each of its own colour."""
    for label, size in zip("abcdefg", sizes, strict=False):
        (folder / label).mkdir(parents=True)
        for number in range(size):
            Image.new("RGB", (4, 4), (20 * ord(label) - 1940, number, 0)).save(folder / label / f"{number}.png")
    return folder


def picture_stream(folder, **options):
    return ready(ClassStream, source="image_folder", path=str(folder), cache_dir=f"{folder}-cache", image_size=4, **options)


@pytest.mark.parametrize(("images", "expected"), [((3, 1), [3] * 4), ((None, 2), [2, 5, 3, 2]), ((2, None), [2] * 4)])
def test_all_classes_of_a_folder_of_pictures_come(tmp_path, images, expected):
    """With as many of their pictures as is asked for; the rest of each class is held out where test_images is null."""
    sizes = [4, 7, 5, 4]
    stream = picture_stream(folder_of_pictures(tmp_path / "a", sizes), train_images=images[0], test_images=images[1])
    assert stream.split == "all" and sorted(experience.title for experience in stream.experiences) == ["a", "b", "c", "d"]
    assert stream.num_steps == sum(expected)
    for number, experience in enumerate(stream.experiences):
        label = "abcd".index(experience.title)
        learned, held_out = (stream.samples(number, split).images[:, :2, 0, 0].tolist() for split in ("train", "test"))
        assert {red for red, _ in learned + held_out} == {20 * label}
        both = [{picture for _, picture in part} for part in (learned, held_out)]
        assert len(both[0]) == expected[label] == stream.num_train(number) and not both[0] & both[1]
        assert len(both[1]) == (images[1] or sizes[label] - images[0])


def test_one_split_of_a_folder_of_pictures(tmp_path):
    plain = folder_of_pictures(tmp_path / "a", [2] * 7)
    dealt = [picture_stream(plain, split=split, train_images=1, test_images=1) for split in ("train", "val")]
    assert [len(stream.classes) for stream in dealt] == [4, 2]
    for split, labels in (("train", "abc"), ("val", "de"), ("test", "fg")):
        for label in labels:
            (tmp_path / "b" / split).mkdir(parents=True, exist_ok=True)
            (plain / label).rename(tmp_path / "b" / split / label)
    given = [picture_stream(tmp_path / "b", split=split, train_images=1, test_images=1) for split in (None, "test", "all")]
    titles = [sorted(experience.title for experience in stream.experiences) for stream in given]
    assert titles == [["f", "g"], ["f", "g"], [*"abcdefg"]]


def test_a_folder_with_a_single_class_is_no_stream(tmp_path):
    with pytest.raises(InputError, match=r"ImageFolder has too few classes, 1, for a stream of at least 2 .* add classes$"):
        picture_stream(folder_of_pictures(tmp_path / "a", [8]), train_images=1, test_images=1)


def test_how_many_classes_have_enough_pictures_is_told(tmp_path):
    folder = folder_of_pictures(tmp_path / "a", [8, 3, 8])
    with pytest.raises(InputError, match=r"has 3 images, fewer than .* = 6; lower one .*--data.num_classes 2: so many"):
        picture_stream(folder, train_images=4, test_images=2)
    assert len(picture_stream(folder, train_images=4, test_images=2, num_classes=2).classes) == 2


def test_all_classes_of_a_data_set(monkeypatch):
    assert len(class_stream(monkeypatch, split="all").classes) == 36


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 13}, "num_classes is 13, and the test split of Glyphs has 12 classes"),
        ({"num_classes": 9, "classes_per_experience": 2}, "num_classes 9 is no multiple of --data.classes_per_experience 2"),
        ({"train_images": 8}, "has 9 images, fewer than --data.train_images 8 \\+ --data.test_images 3 = 11"),
        ({"scenario": "task"}, "classes_per_experience is 1; give at least 2"),
        ({"train_images": None, "test_images": 9}, "has 9 images, fewer than .*train_images null .*at least 1.* 9 = 10"),
        ({"train_images": None, "test_images": None}, "train_images and --data.test_images are both null"),
        ({"classes_per_experience": 13}, "the test split of Glyphs has too few classes, 12, .*per_experience 13; .*split all"),
        ({"source": "image_folder"}, "needs --data.path"),
        ({"batch_size": 0}, "batch_size is 0; give at least 1"),
    ],
)
def test_bad_options_of_a_class_stream(monkeypatch, options, message):
    with pytest.raises(InputError, match=message):
        class_stream(monkeypatch, **options)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SplitMNIST, {"classes_per_experience": 3}, "classes_per_experience is 3"),
        (RotatedMNIST, {"num_experiences": 0}, "num_experiences is 0"),
        (RotatedMNIST, {"train_images": 201}, "train_images is 201, and 5 degrees has 200 train images"),
        (PermutedMNIST, {"test_images": 0}, "test_images is 0"),
        (SplitMNIST, {"passes": 0}, "passes is 0"),
    ],
)
def test_bad_options_of_mnist(cls, options, message):
    with pytest.raises(InputError, match=message.replace("5 degrees", ".*")):
        ready(cls, **options)
