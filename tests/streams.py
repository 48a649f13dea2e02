"""A stream of a few steps, of images that need no files."""

from typing import Any

import numpy as np

from datamodules.stream import Experience, StreamDataModule

SIZE = 6


class Patterns(StreamDataModule):
    """Two classes of random 6x6 patterns with noise in each experience.

    Args:
        scenario: class, task or domain.
        num_experiences: experiences.
        num_images: training images of each.
        has_boundaries: whether methods are told where one ends.
        kwargs: of StreamDataModule.
    """

    input_shape = (1, SIZE, SIZE)
    digest = "patterns"

    def __init__(
        self, scenario: str = "class", num_experiences: int = 3, num_images: int = 23, has_boundaries: bool = True, **kwargs: Any
    ):
        super().__init__(**{"batch_size": 5} | kwargs)
        self.scenario, self.num_experiences, self.num_images = scenario, num_experiences, num_images
        self.has_boundaries = has_boundaries

    @property
    def output_size(self) -> int:
        return 2 if self.scenario == "domain" else 2 * self.num_experiences

    @property
    def experiences(self) -> list[Experience]:
        first = [0 if self.scenario == "domain" else 2 * number for number in range(self.num_experiences)]
        return [Experience(f"patterns {number}", (start, start + 1)) for number, start in enumerate(first)]

    def num_train(self, number: int) -> int:
        return self.num_images

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        patterns = self.generator("patterns", number).integers(0, 256, (2, 1, SIZE, SIZE))
        count = self.num_images if split == "train" else 14
        draw = self.generator("noise", number, split)
        kind = draw.integers(0, 2, count)
        noisy = patterns[kind] + draw.normal(0, 40, (count, 1, SIZE, SIZE))
        return noisy.clip(0, 255).astype(np.uint8), np.array(self.experiences[number].classes)[kind]
