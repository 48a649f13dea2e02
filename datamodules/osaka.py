"""A stream without boundaries whose tasks and data sets change."""

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.errors import InputError, check_at_least
from datamodules.base.encoder import Encoder
from datamodules.base.inputs import as_inputs
from datamodules.base.stream import Experience, Place, StreamBatch, StreamDataModule
from datamodules.files.mnist import MNIST, read_idx
from datamodules.omniglot import Omniglot

SOURCES = ("omniglot", "mnist", "fashion_mnist")


class Osaka(StreamDataModule):
    """The stream of OSAKA (Caccia et al. 2020): it stays with a task with probability p, else draws a data set and a new task.

    A task is `ways` classes in an order of its own, which gives them their labels. Nobody says when it changes, and there is no
    test set: the score is the accuracy on a batch before its labels are used. Omniglot's classes are those of the evaluation set,
    which pre-training on the background set has not seen; of MNIST and Fashion-MNIST it uses the official test images.

    Args:
        data_dir: folder of `omniglot-py`, `mnist` and `fashion_mnist`, the last with the two t10k idx files.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
        stay: probability that the next batch is of the same task.
        probabilities: of Omniglot, MNIST and Fashion-MNIST at a change.
        ways: classes of a task, at most 10.
        shots: images of each class in a batch.
        num_batches: steps of the stream.
        num_workers: loader processes.
        seed: of the stream; linked to `seed_everything`.
        encoder: name of a pretrained network of timm: its features of the pictures are the inputs; null for the pictures.
    """

    picture_shape = (1, 28, 28)
    has_boundaries = False
    has_tests = False

    def __init__(
        self,
        data_dir: Path = Path("data"),
        cache_dir: Path | None = None,
        stay: float = 0.98,
        probabilities: tuple[float, float, float] = (0.5, 0.25, 0.25),
        ways: int = 10,
        shots: int = 5,
        num_batches: int = 10000,
        num_workers: int = 0,
        seed: int = 0,
        encoder: Encoder | None = None,
    ):
        super().__init__(ways * shots, 1, num_workers, seed, encoder)
        if not 0 <= stay <= 1:
            raise InputError(f"--data.stay is {stay}; give a probability, 0 to 1")
        if min(probabilities) < 0 or abs(sum(probabilities) - 1) > 1e-6:
            raise InputError(f"--data.probabilities {', '.join(map(str, probabilities))} do not sum to 1; give 3 that do")
        if not 2 <= ways <= 10:
            raise InputError(f"--data.ways is {ways}; give 2 to 10, the classes of MNIST")
        if not 1 <= shots <= 20:
            raise InputError(f"--data.shots is {shots}; give 1 to 20, the images of a class of Omniglot")
        check_at_least(1, "data", num_batches=num_batches)
        self.data_dir, self.stay, self.probabilities = Path(data_dir).expanduser(), stay, probabilities
        self.ways, self.shots, self.num_batches = ways, shots, num_batches
        self.omniglot = Omniglot(data_dir, "background_evaluation", rotate="none", cache_dir=cache_dir)
        self.mnist, self.cache_dir = MNIST(data_dir, cache_dir), cache_dir

    @property
    def output_size(self) -> int:
        return self.ways

    @property
    def options(self) -> dict[str, Any]:
        names = ("stay", "probabilities", "ways", "shots", "num_batches")
        return {name: getattr(self, name) for name in names}

    @property
    def experiences(self) -> list[Experience]:
        """The data sets: what the prequential accuracy is told apart by."""
        return [Experience(source, tuple(range(self.ways))) for source in SOURCES]

    @property
    def digest(self) -> str:
        return "".join(self._digests)

    @property
    def own_num_steps(self) -> int:
        return self.num_batches

    def num_train(self, number: int) -> int:
        return len(self._images[number])

    def prepare_data(self) -> None:
        self.omniglot.prepare_data()
        self.mnist.prepare_data()
        self._fashion("images", (10_000, 28, 28))

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "_images"):
            return
        characters, digits = self.omniglot.read_split("test"), self.mnist.read_split("test")
        clothes = self._fashion("images", (10_000, 28, 28))[:, None], self._fashion("labels", (10_000,)).astype(np.int64)
        labels = np.repeat(np.arange(len(characters.counts)), characters.counts)
        fashion = sha256(clothes[0].tobytes() + clothes[1].tobytes()).hexdigest()
        self._digests = [characters.digest, digits.digest, fashion]
        images = [characters.images, digits.images, clothes[0]]
        if self.encoder:
            images = [self.encoded(*part).images for part in zip(images, self._digests, strict=True)]
        self._images = [torch.from_numpy(np.array(part)) for part in images]
        self._rows_of = [_by_class(part) for part in (labels, digits.labels, clothes[1])]

    def _fashion(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        name = f"t10k-{kind}-idx{len(shape)}-ubyte"
        folders = (self.data_dir / "fashion_mnist", self.data_dir / "FashionMNIST" / "raw")
        places = [folder / f"{name}{suffix}" for folder in folders for suffix in (".gz", "")]
        path = next((place for place in places if place.is_file()), None)
        remedy = f"get it from https://github.com/zalandoresearch/fashion-mnist and put it into {folders[0]}"
        if path is None:
            raise InputError(f"--data.data_dir {self.data_dir} has no fashion_mnist/{name}.gz; {remedy}")
        try:
            return read_idx(path, shape)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); {remedy}") from error

    @cached_property
    def _segments(self) -> np.ndarray:
        """Number of the task at each step."""
        return np.cumsum(self.generator("changes").random(self.num_batches) >= self.stay)

    def task(self, segment: int) -> tuple[int, np.ndarray]:
        """Data set and classes of a task."""
        generator = self.generator("task", segment)
        source = int(generator.choice(len(SOURCES), p=np.array(self.probabilities) / sum(self.probabilities)))
        return source, generator.permutation(len(self._rows_of[source]))[: self.ways]

    def place(self, cursor: int) -> Place:
        source, classes = self.task(int(self._segments[cursor]))
        generator = self.generator("images", cursor)
        rows = [generator.choice(self._rows_of[source][label], self.shots, replace=False) for label in classes]
        return Place(source, False, False, np.concatenate(rows))

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError  # an image has no label outside a task

    def batch(self, cursor: int, device: torch.device | str = "cpu") -> StreamBatch:
        place = self.place(cursor)
        images = self._images[place.experience][torch.from_numpy(place.rows)].to(device, non_blocking=True)
        y = torch.arange(self.ways, device=device).repeat_interleave(self.shots)
        return StreamBatch(images, as_inputs(images), y, torch.full_like(y, place.experience))


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each class."""
    return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
