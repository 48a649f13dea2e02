"""Trajectories and streams: which images, in which order, under which labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.errors import InputError
from datamodules.files.image_split import ImageSplit
from datamodules.glyphs import Glyphs
from datamodules.omniglot import Omniglot
from datamodules.trajectories import Trajectories

CLASSES, IMAGES = 12, 20
NUMBER = 17  # image k of class c has pixels NUMBER * c + k


@pytest.fixture(autouse=True)
def numbered_images(monkeypatch):
    def read_split(self, split):
        counts = np.full(CLASSES, IMAGES)
        counts[3] = 11  # too few for streams of 15 + 5
        values = [NUMBER * label + image for label, count in enumerate(counts) for image in range(count)]
        pixels = np.array(values, dtype=np.uint8)[:, None, None, None].repeat(28, 2).repeat(28, 3)
        return ImageSplit(pixels, counts, [str(label) for label in range(CLASSES)], split)

    for cls in (Glyphs, Omniglot):
        monkeypatch.setattr(cls, "prepare_data", lambda self: None)
        monkeypatch.setattr(cls, "read_split", read_split)


def trajectories(**wanted) -> Trajectories:
    data = Trajectories(**{"global_labels": True, "val_num_classes": (2, 5), "test_num_classes": (2, 4, 8)} | wanted)
    data.setup()
    return data


def images(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


def rows(data: Trajectories, split: str, index: int) -> tuple[set[int], set[int]]:
    """Row numbers of support and query set."""
    support, _, queries, _ = data.draw(split, index)
    assert len(set(support)) == len(support) and len(set(queries)) == len(queries)
    return set(support.tolist()), set(queries.tolist())


def test_a_trajectory_is_class_after_class_and_labels_are_those_of_the_split():
    data = trajectories(num_classes=3, num_images=4, num_others=2, num_remembered=7)
    assert (data.train_output_size, data.output_size) == (CLASSES, 8)
    split = data._splits["train"]
    of_row = np.repeat(np.arange(CLASSES), split.counts)
    for index in range(20):
        support, support_y, queries, query_y = data.draw("train", index)
        assert support_y.tolist() == of_row[support].tolist() and query_y.tolist() == of_row[queries].tolist()
        classes = support_y.reshape(3, 4)
        assert (classes == classes[:, :1]).all() and len(set(classes[:, 0])) == 3
        assert query_y[:6].tolist() == classes[:, :2].ravel().tolist() and len(queries) == 6 + 7
        episode = data.episode("train", index)
        assert images(episode.support_x) == split.images[support, 0, 0, 0].tolist()
        assert images(episode.query_x) == split.images[queries, 0, 0, 0].tolist()


def test_queries_are_other_images():
    for wanted in ({}, {"num_classes": 10, "num_remembered": 60}):
        data = trajectories(num_images=5, num_others=5, **wanted)
        for split in ("train", "val", "test"):
            for index in range(12):
                support, queries = rows(data, split, index) if split != "train" else map(set, data.draw("train", index)[::2])
                assert not support & queries


def test_remembered_images_are_of_all_classes():
    data = trajectories(num_remembered=20)
    seen = {label for index in range(30) for label in data.draw("train", index)[3][-20:].tolist()}
    assert seen == set(range(CLASSES))


def test_anml_asks_for_the_trajectory_again():
    data = trajectories(num_classes=1, num_images=20, num_others=0, num_remembered=64, repeats_support=True)
    support, support_y, queries, query_y = data.draw("train", 3)
    assert queries[:20].tolist() == support.tolist() and query_y[:20].tolist() == support_y.tolist()
    assert len(queries) == 84 and not set(queries[20:]) & set(support)


def test_labels_of_ordinary_episodes():
    data = trajectories(num_classes=5, num_images=2, num_others=3, num_remembered=0, global_labels=False)
    episode = data.episode("train", 0)
    assert data.train_output_size == 5
    assert episode.support_y.tolist() == torch.arange(5).repeat_interleave(2).tolist()
    assert episode.query_y.tolist() == torch.arange(5).repeat_interleave(3).tolist()


def test_streams_take_turns_in_length():
    data = trajectories()
    assert data.test_groups == ("2 classes", "4 classes", "8 classes")
    for split, lengths in (("val", (2, 5)), ("test", (2, 4, 8))):
        for index in range(9):
            length = lengths[index % len(lengths)]
            support, support_y, queries, query_y = data.draw(split, index)
            assert data.group(split, index) == f"{length} classes"
            assert support_y.tolist() == np.repeat(np.arange(length), 15).tolist()
            assert query_y.tolist() == np.repeat(np.arange(length), 5).tolist()
            of_row = np.repeat(np.arange(CLASSES), data._splits[split].counts)
            assert of_row[support].reshape(length, 15)[:, 0].tolist() == of_row[queries].reshape(length, 5)[:, 0].tolist()
            assert len(set(of_row[support])) == length and 3 not in of_row[support]
    data = trajectories(meta_batch_size=4, val_episodes=5)
    assert [list(batch) for batch in data.val_dataloader().batch_sampler] == [[0], [1], [2], [3], [4]]


def test_pure_function_of_seed_split_and_index():
    first, other = trajectories(), trajectories()
    for split in ("train", "val", "test"):
        backwards = [other.draw(split, index) for index in (2, 1, 0)][::-1]
        for index, expected in enumerate(backwards):
            assert all((a == b).all() for a, b in zip(first.draw(split, index), expected, strict=True))
    seeded = trajectories(seed=1)
    assert any((a != b).any() for a, b in zip(first.draw("test", 2), seeded.draw("test", 2), strict=True))
    assert (first.draw("val", 0)[0] != first.draw("test", 0)[0]).any()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"test_num_classes": (2, 12)}, "--data.test_num_classes asks for 12 classes, .* has 11 of 20 images"),
        ({"val_num_classes": (30,)}, "--data.val_num_classes asks for 30 classes, .* has 11"),
        ({"num_classes": 13}, "--data.num_classes asks for 13 classes, .* has 12 of 10 images"),
        ({"num_images": 18}, "--data.num_classes asks for 3 classes, .* has 0 of 23 images"),
        ({"global_labels": False}, "--data.num_remembered 15 .* give 0"),
    ],
)
def test_what_the_data_cannot_give(wanted, message):
    with pytest.raises(InputError, match=message):
        trajectories(**wanted).check()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_others": 0, "num_remembered": 0}, "has no queries"),
        ({"test_num_classes": ()}, "--data.test_num_classes is .*; give at least one"),
        ({"val_num_classes": (1, 5)}, "--data.val_num_classes is .*; give at least one length, each at least 2"),
        ({"num_images": 0}, "--data.num_images is 0; give at least 1"),
        ({"shots": 0}, "--data.shots is 0; give at least 1"),
    ],
)
def test_options_that_cannot_be(wanted, message):
    with pytest.raises(InputError, match=message):
        Trajectories(**wanted)


def test_glyphs_have_defaults_of_their_own():
    data = trajectories(source="glyphs", test_num_classes=None, val_num_classes=None)
    assert (data.shots, data.queries, data.lengths) == (8, 4, {"val": (10, 50), "test": (10, 50, 90)})


def test_a_checkpoint_knows_that_the_ink_is_white():
    assert trajectories().describe_inputs() == {"inverts_pictures": True}
    encoder = SimpleNamespace(describe=lambda: {"name": "a network"})
    found = Trajectories(encoder=encoder).describe_inputs()
    assert found == {"inverts_pictures": True, "picture_shape": [1, 28, 28], "encoder": {"name": "a network"}}
