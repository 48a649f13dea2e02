"""Pictures prepared by torch are those that Pillow prepares."""

import numpy as np
import pytest
import torch
from PIL import Image

from app.deploy.preparation import prepared
from datamodules.files.pictures import Square


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(28, 28), (105, 105), (7, 300), (1, 1), (33, 5), (90, 20), (20, 90)])
def test_equals_pillow_to_the_bit(channels, shape):
    generator = np.random.default_rng(0)
    for mode in (1, 3):
        pixels = generator.integers(0, 256, (*shape, mode), dtype=np.uint8)
        image = Image.fromarray(pixels[..., 0] if mode == 1 else pixels)
        expected = torch.from_numpy(np.array(Square(28, channels)(image))).double()
        pictures = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        for given in (pictures, pictures.float() / 255, pictures.double() / 255):
            assert torch.equal(prepared(given, channels, 28)[0], expected)
