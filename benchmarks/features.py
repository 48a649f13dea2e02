"""Tasks per second of ProtoNet on cached features: 5-way 5-shot, outer steps, and answers as in an evaluation.

    uv run python -m benchmarks.features [--features 1280] [--pictures 60000] [--seconds 10]

The features are random numbers in a memory-mapped file, as an encoder leaves them: what is timed is the draw of the tasks, their
rows out of the file, and what is computed of them. Nothing of timm is needed. On a busy machine the processor time says more.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from app.algorithms.metric_based.protonet import ProtoNet
from app.backbones.identity import Identity
from app.command_line.allocator import keep_freed_memory
from benchmarks.measure import describe_machine
from datamodules.feature_table import FeatureTable
from datamodules.files.image_split import ImageSplit

CLASSES = 100


class RandomFeatures(FeatureTable):
    """Features of a length of 1 in a file, in 16 bits a number.

    Args:
        folder: where the file is written.
        pictures: rows.
        features: numbers in each.
        kwargs: of ImageEpisodes.
    """

    def __init__(self, folder: Path, pictures: int, features: int, **kwargs):
        super().__init__(folder / "features.npy", **kwargs)
        self.size = features
        rows = np.lib.format.open_memmap(self.path, "w+", np.float16, (pictures, features))
        for first in range(0, pictures, 1000):
            part = np.random.default_rng(first).normal(size=(len(rows[first : first + 1000]), features))
            rows[first : first + 1000] = part / np.linalg.norm(part, axis=1, keepdims=True)
        rows.flush()

    @property
    def input_shape(self) -> tuple[int]:
        return (self.size,)

    def read_split(self, split: str) -> ImageSplit:
        rows = np.load(self.path, mmap_mode="c")
        return ImageSplit(rows, np.full(CLASSES, len(rows) // CLASSES), [str(number) for number in range(CLASSES)], split)


def tasks_per_second(data: FeatureTable, seconds: float, is_training: bool) -> tuple[float, float]:
    """Tasks a second of the clock, and of processor time, with their draw: outer steps, or the answers to their queries."""
    backbone = partial(Identity, scale=None)
    algorithm = ProtoNet(input_shape=data.input_shape, output_size=data.ways, backbone=backbone, scale=9.0, learns_scale=True)
    algorithm.train(is_training)
    optimizer, tasks = torch.optim.Adam(algorithm.parameters()), data.meta_batch_size
    params, step = dict(algorithm.named_parameters()), 0
    started, used = time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds or step < 3:
        if step == 3:  # the first ones fill caches
            started, used = time.monotonic(), time.process_time()
        batch = data.realise("train", data.draws("train", list(range(step * tasks, (step + 1) * tasks))))
        batch = algorithm.as_dtype(batch)
        if is_training:
            gradient, _ = algorithm.outer_gradient(params, batch)
            for name, parameter in params.items():
                parameter.grad = gradient[name]
            optimizer.step()
        else:
            with torch.no_grad():
                algorithm.query_outputs(params, batch)
        step += 1
    done = (step - 3) * tasks
    return done / (time.monotonic() - started), done / (time.process_time() - used)


def main() -> None:
    """Prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--queries", type=int, default=15)
    given = parser.parse_args()
    keep_freed_memory()
    print(describe_machine("cpu"))
    with TemporaryDirectory() as folder:
        options = {"ways": 5, "shots": 5, "queries": given.queries, "meta_batch_size": 32}
        data = RandomFeatures(Path(folder), given.pictures, given.features, **options)
        print(f"ProtoNet, 5-way 5-shot, {given.queries} queries, {given.pictures:,} pictures of {given.features:,} features")
        for name, is_training in (("training", True), ("evaluation", False)):
            by_clock, by_processor = tasks_per_second(data, given.seconds, is_training)
            print(f"{name:>10}: {by_clock:,.0f} tasks a second, {by_processor:,.0f} a second of processor time")


if __name__ == "__main__":
    main()
