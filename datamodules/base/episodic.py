"""Tasks as a pure function of (seed, split, index)."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from app.episode import Episode
from app.errors import InputError, check_at_least
from datamodules.base.resumable import ResumableDataModule
from datamodules.base.sampler import EpisodeSampler, EvaluationSampler, first_of_share
from datamodules.files.image_split import SPLITS


class Draws(NamedTuple):
    """What a loader yields: the numbers that identify a batch of episodes, realised as tensors on the device."""

    split: str
    values: Any


class _EpisodeNumbers(Dataset):
    def __init__(self, datamodule: "EpisodicDataModule", split: str):
        self.datamodule, self.split = datamodule, split

    def __getitems__(self, indices: list[int]) -> Draws:
        return Draws(self.split, self.datamodule.draws(self.split, indices))


def _as_is(batch: Draws) -> Draws:
    return batch


class EpisodicDataModule(ResumableDataModule):
    """Base of all data sets of tasks.

    A subclass gives `task_type`, `input_shape`, `output_size`, `manifest_hash`, `check`, `draw` and, where an episode is more
    than the numbers that identify it, `realise`.

    Args:
        meta_batch_size: tasks in an outer step, over all devices; a multiple of the number of processes.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`.
        num_workers: loader processes; 0 is fastest unless drawing an episode is slow.
        seed: of the episodes; linked to `seed_everything` on the command line.
    """

    test_groups: tuple[str, ...] = ()
    has_streams = False  # evaluation tasks have numbers of classes of their own
    axis_names: tuple[str, str] = ("x", "y")  # of pictures
    block_size: int | None = None  # tasks that the learner computes together on any number of processes

    def __init__(self, meta_batch_size: int, val_episodes: int, test_episodes: int, num_workers: int = 0, seed: int = 0):
        super().__init__(num_workers, seed)
        check_at_least(1, "data", meta_batch_size=meta_batch_size, val_episodes=val_episodes, test_episodes=test_episodes)
        self.meta_batch_size = meta_batch_size
        self.num_episodes = {"val": val_episodes, "test": test_episodes}

    @property
    def step_size(self) -> tuple[str, int]:
        return "tasks", self.meta_batch_size

    @abstractmethod
    def draw(self, split: str, index: int) -> Any:
        """Numbers (numpy arrays) that identify episode `index` of `split`: a pure function of (seed, split, index)."""

    def draws(self, split: str, indices: list[int]) -> Any:
        """The stack of what `draw` gives for each of these episodes."""
        return default_collate([self.draw(split, index) for index in indices])

    def realise(self, split: str, values: Any) -> Episode:
        """The stack of episodes that a stack of draws identifies, on the device of `values`."""
        return Episode(*values)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The pixels from 0 to 1 that inputs were made of, where they are pictures."""
        return inputs

    def support_copies(self, support_x: Tensor, copies: int, split: str, first_episode: int) -> Tensor:
        """Copies of the support sets' pictures, each changed at random, those of a picture side by side.

        Args:
            support_x: of shape (tasks, rows, *input).
            copies: of each picture.
            split: of the tasks.
            first_episode: number of the first task.
        """
        raise NotImplementedError

    def train_output_size_at(self, index: int) -> int:
        """What `train_output_size` is in training episode `index`, and in all of its step."""
        return self.train_output_size

    def describe_task(self) -> dict[str, Any]:
        """What `results.json` says about the task."""
        return {}

    def group(self, split: str, index: int) -> str:
        """Which of `test_groups` a test episode belongs to; each is reported by itself."""
        raise NotImplementedError

    def episode_classes(self, split: str, index: int) -> np.ndarray | None:
        """The number within the split's `class_names` of each label of an episode, where labels are classes with names."""
        return None

    def cluster(self, split: str, index: int) -> int:
        """Episodes with the same number are not independent of each other: confidence intervals count clusters."""
        return index

    def references(self, split: str, index: int) -> dict[str, dict[str, float]]:
        """Scores that other predictors reach on an episode, {predictor: {score: value}}; the same ones for all episodes."""
        return {}

    def posterior(self, split: str, index: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation of the targets at inputs of shape (rows, 1) given the support set, where they are known."""
        return None

    def title(self, split: str, index: int) -> str:
        """What a picture of the episode is called."""
        return f"{split} episode {index}"

    def generator(self, split: str, index: int) -> np.random.Generator:
        """A counter-based generator (Philox): its stream depends on nothing but (seed, split, index)."""
        return self._philox(split, 0, index)

    def block_generator(self, split: str, index: int) -> np.random.Generator:
        """The same for all of the `meta_batch_size` consecutive episodes that make an outer step, in evaluation too.

        For what must be equal within a batch, such as its sizes: no batch reaches beyond such a block.
        """
        return self._philox(split, 1, index // self.meta_batch_size)

    def _philox(self, split: str, stream: int, number: int) -> np.random.Generator:
        key = np.array([self.seed, SPLITS.index(split)], dtype=np.uint64)
        counter = np.array([0, 0, stream, number], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def episode(self, split: str, index: int) -> Episode:
        """Episode `index` of `split`, without a task axis."""
        return Episode(*(tensor[0] for tensor in self.realise(split, self.draws(split, [index]))))

    def check_processes(self, world_size: int, block_size: int | None = None) -> None:
        size = block_size or 1
        if self.meta_batch_size % size:
            raise InputError(
                f"--model.block_size {size} does not divide --data.meta_batch_size {self.meta_batch_size}; give a divisor of it"
            )
        blocks = f" in blocks of --model.block_size {size}" if block_size else ""
        if self.meta_batch_size // size % world_size:
            raise InputError(
                f"--data.meta_batch_size {self.meta_batch_size}{blocks} is not divisible by {world_size} processes; "
                f"make it {-(-self.meta_batch_size // (size * world_size)) * size * world_size}, or change --trainer.devices"
            )
        for split, num_episodes in self.num_episodes.items():
            least = (world_size - 1) * size + 1
            if num_episodes < least:
                raise InputError(
                    f"--data.{split}_episodes {num_episodes} is too few for {world_size} processes{blocks}; give at least {least}"
                )

    def train_dataloader(self) -> DataLoader:
        rank, world_size = self._processes()
        return self._loader("train", EpisodeSampler(self.meta_batch_size, rank, world_size, start=self.cursor))

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        rank, world_size = self._processes()
        episodes = self.num_episodes[split]
        sampler = EvaluationSampler(self.meta_batch_size, rank, world_size, num_episodes=episodes, block_size=self.block_size)
        return self._loader(split, sampler)

    def first_evaluated(self, split: str) -> int:
        """The number of the first episode that this process evaluates."""
        return first_of_share(self.num_episodes[split], *self._processes(), self.block_size)

    def _loader(self, split: str, sampler: EpisodeSampler | EvaluationSampler) -> DataLoader:
        return DataLoader(
            _EpisodeNumbers(self, split),
            batch_sampler=sampler,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_after_batch_transfer(self, batch: Draws | Episode, dataloader_idx: int) -> Episode:
        return self.realise(batch.split, batch.values) if isinstance(batch, Draws) else batch


def choose(generator: np.random.Generator, total: int, count: int) -> np.ndarray:
    """`count` different numbers below `total` in random order."""
    return generator.choice(total, size=count, replace=False)
