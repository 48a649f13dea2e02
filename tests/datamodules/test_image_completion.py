"""Image completion: the right pixels of the right image, in equal numbers within a batch."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.small import algorithm_for, method_for, trainer

from app.algorithms.optimisation_based.maml import MAML
from app.backbones import MLP
from app.errors import InputError
from datamodules.files.image_split import ImageSplit
from datamodules.files.labelled_images import LabelledImages
from datamodules.files.mnist import MNIST
from datamodules.glyphs import Glyphs
from datamodules.image_completion import ImageCompletion


@pytest.fixture(autouse=True)
def disks(request, monkeypatch):
    """Grey 28x28 disks on black instead of glyphs and digits."""
    if "data_dir" in request.fixturenames:
        return

    def images(split: str) -> np.ndarray:
        generator = np.random.default_rng(["train", "val", "test"].index(split))
        x, y, radius = generator.uniform([8, 8, 4], [20, 20, 9], (50, 3)).T[..., None, None]
        inside = (np.arange(28)[:, None] - x) ** 2 + (np.arange(28) - y) ** 2 < radius**2
        return (inside * 200 + generator.integers(0, 30, inside.shape)).astype(np.uint8)[:, None]

    for cls in (Glyphs, MNIST):
        monkeypatch.setattr(cls, "prepare_data", lambda self: None)
    monkeypatch.setattr(Glyphs, "read_split", lambda self, split: ImageSplit(images(split), np.full(5, 10), list("abcde"), split))
    monkeypatch.setattr(MNIST, "read_split", lambda self, split: LabelledImages(images(split), np.arange(50) % 10, split))


def ready(**options) -> ImageCompletion:
    data = ImageCompletion(**options)
    data.prepare_data()
    data.setup()
    data.check()
    return data


@pytest.mark.parametrize("source", ["glyphs", "mnist"])
def test_points_are_those_of_the_image(source):
    data = ready(source=source)
    for split in ("train", "test"):
        for index in range(20):
            image = data.images.read_split(split).images[data.draw(split, index)[0]]
            episode = data.episode(split, index)
            x, y = torch.cat([episode.support_x, episode.query_x]), torch.cat([episode.support_y, episode.query_y])
            places = ((x.double() + 1) / 2 * 27).round().long()
            assert ((places / 27 * 2 - 1) - x).abs().max() < 1e-6
            assert len({tuple(place) for place in places.tolist()}) == len(places)  # context and targets are different pixels
            expected = torch.from_numpy(image[0, places[:, 0], places[:, 1]].astype(np.float32)) / 255 - 0.5
            torch.testing.assert_close(y[:, 0], expected)
    assert (data.input_shape, data.output_size) == ((2,), 1)


def test_sizes_are_equal_within_a_batch_and_drawn_for_each():
    data = ready(meta_batch_size=4, val_episodes=30, min_points=3, max_points=60)
    seen = set()
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        for number, draws in zip(range(8), loader, strict=False):  # collating fails where the sizes differ
            _, support, queries = draws.values
            assert len(support) == (2 if split == "val" and number == 7 else 4)
            assert (support.shape[1], queries.shape[1]) == data.sizes(split, 4 * number) == data.sizes(split, 4 * number + 1)
            seen.add((support.shape[1], queries.shape[1]))
    assert len(seen) > 10
    sizes = np.array([data.sizes("train", 4 * step) for step in range(3000)])
    assert sizes.min() == 3 and sizes[:, 0].max() == 57 and sizes.sum(1).max() == 60
    assert abs(sizes[:, 0].mean() - 30) < 1.5  # uniform in 3..57
    rest = 60 - sizes[:, 0]
    assert abs(((sizes[:, 1] - 3) / np.maximum(rest - 3, 1))[rest > 3].mean() - 0.5) < 0.03


def test_an_episode_depends_on_seed_split_and_index_alone():
    data, again = ready(), ready()
    again.draw("train", 5)
    for values, same in zip(data.draw("train", 4), again.draw("train", 4), strict=True):
        np.testing.assert_array_equal(values, same)
    for other in (data.draw("train", 5), data.draw("val", 4), ready(seed=1).draw("train", 4)):
        assert not np.array_equal(data.draw("train", 4)[1], other[1])
    episodes = [ready(meta_batch_size=4).episode("val", index).support_y for index in range(3)]
    batch = next(iter(data.__class__.val_dataloader(ready(meta_batch_size=4))))
    assert torch.equal(ready().realise("val", batch.values).support_y[:3], torch.stack(episodes))


def test_a_whole_image():
    data = ready()
    x, y = data.whole_image("val", 7)
    image = data.images.read_split("val").images[data.draw("val", 7)[0]]
    torch.testing.assert_close(y.view(28, 28), torch.from_numpy(image[0]) / 255 - 0.5)
    assert x[0].tolist() == [-1, -1] and x[27].tolist() == [-1, 1] and x[-1].tolist() == [1, 1]


@pytest.mark.slow
def test_maml_completes_images():
    data = ready(meta_batch_size=4, test_episodes=40, min_points=20)
    options = {"inner_lr": 0.1, "inner_steps": 3, "optimizer": partial(torch.optim.Adam, lr=0.003)}
    algorithm = algorithm_for(MAML, data, backbone=partial(MLP, hidden_sizes=(64, 64)), **options)
    run = trainer(150, gradient_clip_val=1.0)
    scores = []
    for train in (False, True):
        if train:
            run.fit(algorithm, data)
        run.test(algorithm, datamodule=data, verbose=False)
        scores.append(algorithm.evaluation["scores"]["mse"]["mean"])
    pixels = data.images.read_split("test").images / 255
    assert scores[1][-1] < 0.6 * pixels.var() and scores[1][-1] < 0.75 * scores[1][0] and scores[1][-1] < 0.7 * scores[0][-1]


def test_numbers_that_cannot_be():
    with pytest.raises(InputError, match=r"--data.min_points is 0; give at least 1"):
        ImageCompletion(min_points=0)
    with pytest.raises(InputError, match=r"--data.max_points is 5, less than twice --data.min_points 3"):
        ImageCompletion(max_points=5)
    with pytest.raises(InputError, match=r"--data.max_points is 2000 \(28x28 pixels are there\), less than .* 500"):
        ImageCompletion(min_points=500, max_points=2000)
    assert ImageCompletion(max_points=2000).max_points == 784


def test_the_real_digits(data_dir, tmp_path):
    if not (data_dir / "mnist").is_dir():
        pytest.skip(f"no {data_dir / 'mnist'}: put the four idx files of MNIST there")
    data = ready(source="mnist", data_dir=str(data_dir), cache_dir=str(tmp_path), meta_batch_size=2, val_episodes=2)
    algorithm = method_for("MAML", data)
    run = trainer(2)
    run.fit(algorithm, data)
    assert run.global_step == 2 and data.draw("train", 0)[0] < 50_000
