"""Printed characters: classes that can be told apart, scripts that are unseen, a cache that is drawn once."""

import unicodedata

import numpy as np
import pytest
import torch

from app.errors import InputError
from datamodules import glyphs
from datamodules.files.image_split import SPLITS
from datamodules.glyphs import Glyphs

pytestmark = pytest.mark.slow  # all characters are drawn


class Drawing:
    """The folder of a cache, and what `draw_characters` and `choose_classes` returned while it was drawn."""

    def __init__(self, cache_dir: str):
        self.cache_dir = cache_dir


@pytest.fixture(scope="session")
def drawing(tmp_path_factory) -> Drawing:
    results = Drawing(str(tmp_path_factory.mktemp("glyphs")))

    def recorded(name):
        function = getattr(glyphs, name)

        def call(*args):
            setattr(results, name, function(*args))
            return getattr(results, name)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_characters", "choose_classes"):
            patch.setattr(glyphs, name, recorded(name))
        Glyphs(cache_dir=results.cache_dir).prepare_data()
    return results


@pytest.fixture
def data(drawing) -> Glyphs:
    return ready(drawing)


def ready(drawing, **options) -> Glyphs:
    datamodule = Glyphs(cache_dir=drawing.cache_dir, **options)
    datamodule.setup()
    return datamodule


def test_episodes_have_the_shapes_and_labels_of_the_task(data):
    data.check()
    train, test = data.episode("train", 0), data.episode("test", 0)
    assert train.support_x.shape == (5, 1, 28, 28) and train.query_x.shape == (5, 1, 28, 28)
    assert test.query_x.shape == (15, 1, 28, 28)
    assert test.query_y.tolist() == [label for label in range(5) for _ in range(3)]
    assert test.query_x.min() == 0 and 0.5 < test.query_x.max() <= 1


def test_an_episode_depends_on_seed_split_and_index_alone(drawing, data):
    again = ready(drawing).episode("test", 7)
    assert all(torch.equal(one, other) for one, other in zip(data.episode("test", 7), again, strict=True))
    for other in (data.episode("test", 8), data.episode("val", 7), ready(drawing, seed=1).episode("test", 7)):
        assert not torch.equal(again.support_x, other.support_x)


def test_drawing_does_not_depend_on_global_random_state():
    np.random.seed(0)
    first = glyphs.distortion(0x531, 3)
    np.random.seed(1)
    assert glyphs.distortion(0x531, 3) == first != glyphs.distortion(0x531, 4)


def test_support_and_query_share_no_image(data):
    for index in range(50):
        rows = np.concatenate(data.draw("test", index), 1)
        assert len(np.unique(rows)) == rows.size
        episode = data.episode("test", index)
        assert torch.cdist(episode.support_x.flatten(1), episode.query_x.flatten(1)).min() > 0


@pytest.mark.parametrize(
    "same",
    [
        ["LATIN CAPITAL LETTER A", "GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"],
        ["LATIN CAPITAL LETTER O", "MODIFIER LETTER CAPITAL O", "ARMENIAN CAPITAL LETTER OH"],
        ["LATIN CAPITAL LETTER S", "CYRILLIC CAPITAL LETTER DZE", "LISU LETTER SA"],
        ["LATIN CAPITAL LETTER U", "CANADIAN SYLLABICS TE"],
        ["HYPHEN-MINUS", "MINUS SIGN", "EM DASH"],
    ],
)
def test_characters_that_look_the_same_are_one_class(drawing, same):
    codes = [ord(unicodedata.lookup(name)) for name in same]
    assert [code in drawing.draw_characters for code in codes] == [True] * len(codes)
    assert [code in drawing.choose_classes for code in codes] == [True] + [False] * (len(codes) - 1)


@pytest.mark.parametrize("different", ["A\u00c1\u00c0", "0O", "il", "m\u043c", "\u05d0\u05d1", "\u14c0\u14c2"], ids=ascii)
def test_characters_that_look_different_are_classes(drawing, different):
    assert [character for character in different if ord(character) not in drawing.choose_classes] == []


def test_a_picture_is_in_one_class_only(drawing):
    pictures = [drawing.draw_characters[code][face].tobytes() for code, faces in drawing.choose_classes.items() for face in faces]
    assert len(set(pictures)) == len(pictures)


def test_no_two_classes_look_alike_in_a_face(drawing):
    for face in (3, 8):
        codes = [code for code, faces in drawing.choose_classes.items() if face in faces]
        assert len(glyphs.alike(np.stack([drawing.draw_characters[code][face] for code in codes]))) == 0


def test_pictures_one_pixel_apart_are_alike_and_a_dot_makes_them_different():
    bar = np.zeros((28, 28), dtype=np.uint8)
    bar[2:26, 10:14] = 255
    dotted = bar.copy()
    dotted[3:6, 20:23] = 255
    assert glyphs.alike(np.stack([bar, np.roll(bar, 1, axis=1), np.roll(bar, 3, axis=1), dotted])).tolist() == [[1, 0]]


def test_scripts_of_the_splits_are_separate(data):
    def classes_of(script, split):
        return sum(script in name for name in data.class_names(split))

    for script in ("CANADIAN SYLLABICS", "GEORGIAN", "ARMENIAN", "HEBREW"):
        assert classes_of(script, "test") > 50 and classes_of(script, "train") == classes_of(script, "val") == 0
    for script in ("CYRILLIC", "ARABIC", "LAO"):
        assert classes_of(script, "val") > 40 and classes_of(script, "train") == classes_of(script, "test") == 0
    assert not set(data.class_names("train")) & set(data.class_names("test"))
    assert "U+0531 ARMENIAN CAPITAL LETTER AYB" in data.class_names("test")
    for split, least in zip(SPLITS, (2000, 350, 550), strict=True):
        names = data.class_names(split)
        assert names == sorted(set(names)) and len(names) > least


def test_ink_fills_the_frame(drawing, data):
    def extent(images):
        """The longer side of the ink, of all pictures but the shortest hundredth: tips of needles are pale."""
        across, along = (images > 64).any(1), (images > 64).any(2)
        sides = [28 - side.argmax(1) - side[:, ::-1].argmax(1) for side in (across, along)]
        return np.quantile(np.maximum(*sides), 0.01).item()

    undistorted = np.stack([image for faces in drawing.draw_characters.values() for image in faces.values()])
    assert extent(undistorted) >= 24
    assert undistorted[:, 0].max() < 64  # the margin
    for split in SPLITS:
        images = data.read_split(split).images
        assert images.dtype == np.uint8 and images.shape[1:] == (1, 28, 28)
        assert images.max(axis=(1, 2, 3)).min() > 64
        assert extent(images[:, 0]) >= 18


def test_a_class_has_at_least_four_images(data):
    for split in SPLITS:
        counts = data.read_split(split).counts
        assert counts.min() == 4 and counts.max() <= 16 and counts.sum() == len(data.read_split(split).images)


def test_characters_are_drawn_once(drawing, data, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(glyphs, "build", lambda paths: calls.append(paths) or data._arrays)
    for _ in range(2):
        again = Glyphs(cache_dir=str(tmp_path))
        again.setup()
        assert again.manifest_hash == data.manifest_hash
        assert again.class_names("val") == data.class_names("val")
    assert len(calls) == 1 and len(calls[0]) == 16
    ready(drawing)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 700}, r"the val split of Glyphs has .*\d+.* --data.ways 700"),
        ({"train_ways": 3000}, r"the train split of Glyphs has .*\d+.* --data.train_ways 3000"),
        ({"shots": 2}, r"has .*4.* --data.shots 2 \+ --data.queries 3 = 5"),
        ({"train_shots": 4}, r"has .*4.* --data.train_shots 4 \+ --data.train_queries 1 = 5"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(drawing, options, message):
    with pytest.raises(InputError, match=message):
        ready(drawing, **options).check()


def test_missing_faces_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(InputError, match="has 0 of the 16 faces"):
        glyphs.face_paths()
