"""What arrives when: a pure function of the seed and the options."""

import json

import numpy as np
import pytest
import torch
from streams import Patterns

from app.errors import InputError
from datamodules.class_stream import ClassStream
from datamodules.images import ImageSplit
from datamodules.mnist import MNIST, LabelledImages
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 13}, "num_classes is 13, and the test split of Glyphs has 12 classes"),
        ({"num_classes": 9, "classes_per_experience": 2}, "num_classes 9 is no multiple of --data.classes_per_experience 2"),
        ({"train_images": 8}, "has 9 images, fewer than --data.train_images 8 \\+ --data.test_images 3 = 11"),
        ({"scenario": "task"}, "classes_per_experience is 1; give at least 2"),
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
