"""Pictures that only some methods and data sets have."""

import numpy as np
import pytest
import torch
from helpers.small import Blots, algorithm_for, method_for, trainer
from PIL import Image

from app.algorithms.optimisation_based.maml import MAML
from callbacks.pictures.completed_images import CompletedImages
from callbacks.pictures.episode_gallery import EpisodeGallery
from callbacks.pictures.set_samples import SetSamples
from datamodules.files.image_split import ImageSplit
from datamodules.image_completion import ImageCompletion


def pictures(folder) -> list[str]:
    return sorted(path.name for path in (folder / "pictures").glob("*.png"))


@pytest.mark.parametrize(("method", "expected"), [("NeuralStatistician", ["test_samples", "val_samples"]), ("MAML", [])])
def test_samples_of_a_set(method, expected, tmp_path):
    data = Blots(ways=3, shots=2, queries=2, meta_batch_size=2, val_episodes=2, test_episodes=2)
    algorithm = method_for(method, data)
    run = trainer(2, (SetSamples(),), default_root_dir=tmp_path, val_check_interval=2, check_val_every_n_epoch=None)
    run.fit(algorithm, data)
    run.test(algorithm, datamodule=data, verbose=False)
    assert pictures(tmp_path) == [f"{name}_0000002.png" for name in expected]
    for name in pictures(tmp_path):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.width > 300


class Halfway(MAML):
    """Predicts a standard deviation beside the mean, as a neural process does."""

    def predict(self, params, adapted, query_x):
        mean = super().predict(params, adapted, query_x)
        return torch.cat([mean, torch.full_like(mean, 0.25)], -1)

    def evaluate(self, params, episode, split):
        return {0: {"mse": torch.zeros(()), "loss": torch.zeros(())}}, torch.zeros(())


@pytest.mark.slow
@pytest.mark.parametrize("cls", [MAML, Halfway])
def test_completed_images(cls, tmp_path):
    data = random_images(min_points=5)
    algorithm = algorithm_for(cls, data)
    callbacks = (CompletedImages(), EpisodeGallery())
    run = trainer(2, callbacks, default_root_dir=tmp_path)
    run.test(algorithm, datamodule=data, verbose=False)
    (name,) = pictures(tmp_path)
    assert name == "test_completed_images_0000000.png"
    with Image.open(tmp_path / "pictures" / name) as picture:
        assert picture.height > (800 if cls is Halfway else 500)


def random_images(**options) -> ImageCompletion:
    data = ImageCompletion(val_episodes=2, test_episodes=2, **options)
    generator = np.random.default_rng(0)
    splits = ("train", "val", "test")
    images = {split: generator.integers(0, 256, (9, 1, 28, 28), dtype=np.uint8) for split in splits}
    data._splits = {split: ImageSplit(images[split], np.array([9]), ["a"], split) for split in splits}
    data.prepare_data = lambda: None
    return data
