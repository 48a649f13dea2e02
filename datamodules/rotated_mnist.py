"""Digits that turn."""

import numpy as np
import torch

from datamodules.base.mnist_stream import SharedDigits
from datamodules.base.stream import Experience


class RotatedMNIST(SharedDigits):
    """Rotated MNIST (Lopez-Paz and Ranzato 2017): each experience has all digits, turned by one angle between 0 and 180 degrees.

    The angle of experience t of T is drawn from the t-th of T equal parts, so that the angles increase. The protocol of Riemer et
    al. (2019) and Gupta et al. (2020) is 20 experiences of 1,000 images, once through, in batches of 10.
    """

    @property
    def experiences(self) -> list[Experience]:
        return [Experience(f"{angle:.0f} degrees", tuple(range(10))) for angle in self.angles]

    @property
    def angles(self) -> np.ndarray:
        """Of each experience, in degrees."""
        parts = np.arange(self.num_experiences) + self.generator("angles").random(self.num_experiences)
        return 180 * parts / self.num_experiences

    def change(self, number: int, images: np.ndarray) -> np.ndarray:
        from torchvision.transforms.functional import rotate

        return rotate(torch.from_numpy(np.ascontiguousarray(images)), float(self.angles[number])).numpy()
