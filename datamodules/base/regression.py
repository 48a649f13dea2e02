"""What regression data sets share."""

from typing import Any, Literal

import torch

from app.episode import Episode
from app.errors import InputError
from datamodules.base.episodic import EpisodicDataModule

SizeRange = tuple[int, int]


class RegressionEpisodes(EpisodicDataModule):
    """Base of the regression data sets: `draw` gives the arrays of an episode themselves, in float64."""

    task_type: Literal["regression"] = "regression"

    def realise(self, split: str, values: Any) -> Episode:
        return Episode(*(value.to(torch.get_default_dtype()) for value in values))

    def draw_sizes(
        self, split: str, index: int, num_context: SizeRange, num_target: SizeRange | None, total: int
    ) -> tuple[int, int]:
        """Context and target size, equal in a block of `meta_batch_size` episodes.

        Args:
            split: of the episode.
            index: of the episode.
            num_context: the context size is uniform from the first to the second number.
            num_target: the same for the target size, as far as there is room for it; null for all the room.
            total: both sizes together are at most this.
        """
        generator = self.block_generator(split, index)
        context = int(generator.integers(*num_context, endpoint=True))
        least, most = num_target or (total - context, total)
        return context, int(generator.integers(least, min(most, total - context), endpoint=True))


def check_sizes(option: str, sizes: SizeRange) -> None:
    """Raises an InputError where the range of sizes is empty."""
    if not 1 <= sizes[0] <= sizes[1]:
        raise InputError(f"--data.{option} is from {sizes[0]} to {sizes[1]}; give two numbers from 1, the smaller one first")
