"""Regression of sine waves, as in MAML's paper."""

from typing import Any

import numpy as np

from app.episode import Episode
from app.errors import check_at_least
from datamodules.base.regression import RegressionEpisodes


class Sinusoid(RegressionEpisodes):
    """y = amplitude * sin(x - phase), amplitude in U[0.1, 5], phase in U[0, pi], x in U[-5, 5] (Finn et al. 2017, section 5.1).

    Args:
        shots: points of the support set.
        queries: points of the query set.
        train_shots: points of the support set in training, null for `shots`.
        train_queries: points of the query set in training, null for `queries`.
        meta_batch_size: tasks in an outer step, over all devices.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
    """

    input_shape = (1,)
    output_size = 1
    manifest_hash = "sinusoid: amplitude 0.1-5, phase 0-pi, x -5-5"

    def __init__(
        self,
        shots: int = 10,
        queries: int = 100,
        train_shots: int | None = None,
        train_queries: int | None = None,
        meta_batch_size: int = 25,
        val_episodes: int = 200,
        test_episodes: int = 600,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        check_at_least(1, "data", shots=shots, queries=queries, train_shots=train_shots, train_queries=train_queries)
        self.shots, self.queries = shots, queries
        self.train_shots, self.train_queries = train_shots or shots, train_queries or queries

    def describe_task(self) -> dict[str, Any]:
        return {"ways": None, "shots": self.shots, "queries": self.queries}

    def draw(self, split: str, index: int) -> Episode:
        generator = self.generator(split, index)
        shots = self.train_shots if split == "train" else self.shots
        queries = self.train_queries if split == "train" else self.queries
        amplitude, phase = generator.uniform(0.1, 5.0), generator.uniform(0.0, np.pi)
        x = generator.uniform(-5.0, 5.0, size=(shots + queries, 1))
        y = amplitude * np.sin(x - phase)
        return Episode(x[:shots], y[:shots], x[shots:], y[shots:])
