"""What every reader of pictures makes of its files: the images of a split."""

from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass
class ImageSplit:
    """The images of one split, class after class.

    Attributes:
        images: pixels 0..255, of shape (images, channels, height, width), an array in memory or a memory map.
        counts: images of each class, of shape (classes,).
        class_names: sorted as the classes are.
        digest: identifies pixels, classes and split.
    """

    images: np.ndarray
    counts: np.ndarray
    class_names: list[str]
    digest: str
