"""Data whose place is a cursor."""

from abc import abstractmethod
from typing import Any, Literal

from lightning import LightningDataModule

from app.errors import InputError


class ResumableDataModule(LightningDataModule):
    """Base of all data: its state is a cursor, the number of training batches taken.

    A subclass gives `task_type`, `input_shape`, `output_size`, `manifest_hash`, `check` and the loaders.

    Args:
        num_workers: loader processes.
        seed: of everything that is drawn; linked to `seed_everything` on the command line.

    Attributes:
        used_splits: those that the command at hand draws from, which `check` looks at.
    """

    task_type: Literal["classification", "regression"]

    def __init__(self, num_workers: int = 0, seed: int = 0):
        super().__init__()
        if not 0 <= seed < 2**64:
            raise InputError(f"--seed_everything is {seed}; give a number from 0 to 2**64 - 1")
        self.num_workers = num_workers
        self.seed = seed
        self.cursor = 0
        self.used_splits: tuple[str, ...] = ("train", "val", "test")

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width) of an image, (features,) of a vector."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Classes, or dimensions of a regression target."""

    @property
    def train_output_size(self) -> int:
        """Classes in training, where they are others than at test."""
        return self.output_size

    @property
    @abstractmethod
    def manifest_hash(self) -> str:
        """Identifies the data and how they are used, not what is drawn from them; known after `setup`."""

    @property
    @abstractmethod
    def step_size(self) -> tuple[str, int]:
        """What a step is made of, over all devices: the name of the things, and how many."""

    def describe_inputs(self) -> dict[str, Any]:
        """What a checkpoint says about how inputs and targets are made of files, beside their shapes; known after `setup`."""
        return {}

    @property
    def num_steps(self) -> int | None:
        """Training batches that there are; null where they never end."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """Reads what `prepare_data` made, once."""

    def check(self) -> None:
        """Raises an InputError where the data cannot give what is asked for; called after `setup`."""

    def check_hash(self, manifest_hash: str) -> None:
        """Raises an InputError where training began on data with another hash."""
        if manifest_hash != self.manifest_hash:
            raise InputError(
                f"the checkpoint was trained on data with hash {manifest_hash[:12]}, "
                f"--data now has {self.manifest_hash[:12]}; restore the data, or start a new run without --ckpt_path"
            )

    def check_processes(self, world_size: int, block_size: int | None = None) -> None:
        """Raises an InputError where a step cannot be shared by so many processes.

        Args:
            world_size: number of processes.
            block_size: tasks that one of them computes together; null where any number may.
        """

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.cursor, "manifest_hash": self.manifest_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.trainer and self.trainer.training:
            self.check_hash(state_dict["manifest_hash"])
        self.cursor = state_dict["cursor"]
