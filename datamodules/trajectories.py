"""Class after class, image after image: short trajectories to meta-train on, long streams of new classes to deploy on."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from app.episode import Episode
from app.errors import InputError, check_at_least
from datamodules.base.encoder import Encoder
from datamodules.base.episodic import choose
from datamodules.base.sampler import EvaluationSampler
from datamodules.base.split_images import SplitImages
from datamodules.files.image_split import SPLITS, ImageSplit
from datamodules.glyphs import Glyphs
from datamodules.omniglot import Omniglot

# Of evaluation streams: images to learn and held-out ones of each class, lengths of val and of test. Few glyphs have 20 images.
DEFAULTS = {"omniglot": (15, 5, (10, 50), (10, 50, 100, 200, 600)), "glyphs": (8, 4, (10, 50), (10, 50, 90))}


class Trajectories(SplitImages):
    """Trajectories of images to meta-train on, and streams of classes never seen to deploy on (Javed and White 2019, section 5).

    The support set of a training episode is a trajectory: `num_classes` classes, one after the other, `num_images` images of
    each. Its query set is `num_others` other images of each of these classes, the trajectory's own where `repeats_support`, and
    `num_remembered` images of any training class, none of the trajectory. Labels are the numbers of the classes in the train
    split, or, for algorithms of ordinary episodes, in the trajectory.

    An evaluation episode is one class order: n classes of the split without replacement, `shots` images of each, class after
    class, and `queries` held-out ones of each as the query set; labels 0..n-1 in the order of appearance. The lengths n take
    turns from episode to episode; classes with too few images are left out.

    Args:
        source: omniglot: background classes for train and val (5 alphabets), evaluation classes for test; glyphs: scripts.
        data_dir: folder of Omniglot's files; they are downloaded there where they are absent.
        split_seed: of Omniglot's val alphabets.
        rotations: whether every training class of Omniglot, turned by 90, 180 and 270 degrees, is three classes more.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
        num_classes: classes of a training trajectory: 3 in OML, 1 in ANML, 20 in GeMCL.
        num_images: images of each: 5 in OML and GeMCL, 20 in ANML.
        num_others: other images of each as queries: 5 in OML, 0 in ANML, 15 in GeMCL.
        num_remembered: random images of all training classes as queries: 15 in OML, 64 in ANML, 0 in GeMCL.
        repeats_support: whether the images of the trajectory are queries as well, as in ANML.
        shots: images to learn of each class of an evaluation stream; null for 15, 8 of glyphs.
        queries: held-out images of each; null for 5, 4 of glyphs.
        val_num_classes: lengths of the validation streams, in classes; null for 10 and 50.
        test_num_classes: lengths of the test streams; null for 10, 50, 100, 200 and 600; 10, 50 and 90 of glyphs.
        meta_batch_size: trajectories in an outer step, over all devices.
        val_episodes: class orders scored at each validation, of all lengths together.
        test_episodes: class orders scored by `test`, of all lengths together.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
        global_labels: whether training labels are the numbers of the classes in the train split; linked to the algorithm.
        encoder: name of a pretrained network of timm: its features of the pictures are the inputs; null for the pictures.
    """

    task_type: Literal["classification"] = "classification"
    picture_shape = (1, 28, 28)
    has_streams = True

    def __init__(
        self,
        source: Literal["omniglot", "glyphs"] = "omniglot",
        data_dir: Path = Path("data"),
        split_seed: int = 0,
        rotations: bool = False,
        cache_dir: Path | None = None,
        num_classes: int = 3,
        num_images: int = 5,
        num_others: int = 5,
        num_remembered: int = 15,
        repeats_support: bool = False,
        shots: int | None = None,
        queries: int | None = None,
        val_num_classes: tuple[int, ...] | None = None,
        test_num_classes: tuple[int, ...] | None = None,
        meta_batch_size: int = 1,
        val_episodes: int = 6,
        test_episodes: int = 15,
        num_workers: int = 0,
        seed: int = 0,
        global_labels: bool = False,
        encoder: Encoder | None = None,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        given = (shots, queries, val_num_classes, test_num_classes)
        shots, queries, val, test = (
            default if value is None else value for value, default in zip(given, DEFAULTS[source], strict=True)
        )
        check_at_least(1, "data", num_classes=num_classes, num_images=num_images, shots=shots, queries=queries)
        check_at_least(0, "data", num_others=num_others, num_remembered=num_remembered)
        if not (num_others or num_remembered or repeats_support):
            raise InputError("--data.num_others and --data.num_remembered are 0: a trajectory has no queries; raise one of them")
        for name, lengths in (("val", val), ("test", test)):
            if not lengths or min(lengths) < 2:
                raise InputError(f"--data.{name}_num_classes is {list(lengths)}; give at least one length, each at least 2")
        if source == "omniglot":
            rotate = "train" if rotations else "none"
            self.images = Omniglot(data_dir, "background_evaluation", split_seed, rotate, cache_dir)
        else:
            self.images = Glyphs(cache_dir=cache_dir)
        self.source, self.encoder, self.cache_dir = source, encoder, cache_dir
        self.num_classes, self.num_images, self.num_others = num_classes, num_images, num_others
        self.num_remembered, self.repeats_support = num_remembered, repeats_support
        self.shots, self.queries = shots, queries
        self.lengths = {"val": tuple(val), "test": tuple(test)}
        self.test_groups = tuple(f"{length} classes" for length in dict.fromkeys(self.lengths["test"]))
        self.global_labels = global_labels

    @property
    def output_size(self) -> int:
        return max(self.lengths["test"])

    @property
    def train_output_size(self) -> int:
        if not self.global_labels:
            return self.num_classes
        self.prepare_data()
        self.setup()
        return len(self._splits["train"].counts)

    @property
    def origin(self) -> str:
        return self.images.origin

    def prepare_data(self) -> None:
        self.images.prepare_data()

    def read_split(self, split: str) -> ImageSplit:
        return self.images.read_split(split)

    def describe_inputs(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"inverts_pictures": self.images.inverts_pictures}
        if self.encoder:
            inputs |= {"picture_shape": list(self.images.picture_shape), "encoder": self.encoder.describe()}
        return inputs

    def describe_task(self) -> dict[str, Any]:
        return {"source": self.source, "num_classes": self.lengths["test"], "shots": self.shots, "queries": self.queries}

    def check(self) -> None:
        if self.num_remembered and not self.global_labels:
            raise InputError(
                f"--data.num_remembered {self.num_remembered} asks for images of all training classes, and the algorithm learns "
                "those of one trajectory at a time; give 0"
            )
        for split in SPLITS:
            names = ("num_images", "num_others") if split == "train" else ("shots", "queries")
            lengths = self.lengths.get(split, (self.num_classes,))
            option = "num_classes" if split == "train" else f"{split}_num_classes"
            found = len(self._classes(split))
            if found < max(lengths):
                raise InputError(
                    f"--data.{option} asks for {max(lengths)} classes, and the {split} split of {self.source} has {found} of "
                    f"{sum(getattr(self, name) for name in names)} images (--data.{' + --data.'.join(names)}); lower one of them"
                )

    def _classes(self, split: str) -> np.ndarray:
        """The classes with enough images."""
        shots, queries = (self.num_images, self.num_others) if split == "train" else (self.shots, self.queries)
        return np.flatnonzero(self._splits[split].counts >= shots + queries)

    def length(self, split: str, index: int) -> int:
        """Classes of a trajectory or stream."""
        return self.num_classes if split == "train" else self.lengths[split][index % len(self.lengths[split])]

    def group(self, split: str, index: int) -> str:
        return f"{self.length(split, index)} classes"

    def title(self, split: str, index: int) -> str:
        return f"{split} stream {index}, {self.group(split, index)}"

    def draw(self, split: str, index: int) -> tuple[np.ndarray, ...]:
        """Rows of the image array and labels of the support set, then of the query set, each of shape (rows,)."""
        generator = self.generator(split, index)
        shots, queries = (self.num_images, self.num_others) if split == "train" else (self.shots, self.queries)
        counts, starts, fitting = self._splits[split].counts, self._starts[split], self._classes(split)
        classes = fitting[choose(generator, len(fitting), self.length(split, index))]
        rows = np.stack([starts[label] + choose(generator, counts[label], shots + queries) for label in classes])
        learned, others = rows[:, :shots].ravel(), rows[:, shots:].ravel()
        if split == "train":
            remembered = np.setdiff1d(np.arange(counts.sum()), learned)
            remembered = remembered[choose(generator, len(remembered), self.num_remembered)]
            others = np.concatenate([learned[: len(learned) * self.repeats_support], others, remembered])
        labels = [np.searchsorted(starts, part, side="right") - 1 for part in (learned, others)]
        if split != "train" or not self.global_labels:
            positions = np.argsort(classes)
            labels = [positions[np.searchsorted(classes, part, sorter=positions)] for part in labels]
        return learned, labels[0], others, labels[1]

    def realise(self, split: str, values: Any) -> Episode:
        support, support_y, queries, query_y = values
        return Episode(self.images_at(split, support), support_y, self.images_at(split, queries), query_y)

    def _evaluation_loader(self, split: str) -> DataLoader:
        # Streams of different lengths do not fit into one batch.
        rank, world_size = self._processes()
        return self._loader(split, EvaluationSampler(1, rank, world_size, num_episodes=self.num_episodes[split]))
