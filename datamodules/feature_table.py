"""Few-shot classification of a person's own rows of numbers."""

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import InputError
from datamodules.base.images import ImageEpisodes
from datamodules.base.split import check_fractions, deal_classes
from datamodules.files.feature_rows import read_feature_rows
from datamodules.files.image_split import SPLITS, ImageSplit


class FeatureTable(ImageEpisodes):
    """Rows of numbers with a class: a table, or embeddings of texts, sounds or pictures that were made elsewhere.

    Classes are split into train, val and test, by a column or by `split_fractions`. Each column is standardised by its mean and
    standard deviation over the rows of the training classes, unless `standardise` is false.

    Args:
        path: a .npz file, whose arrays have a row for each row; a .csv file in UTF-8, its first line the names of the columns; or
            a .parquet file, where pyarrow is installed. `train.py embed` writes one of pictures.
        label: the column, or array, of the class of a row.
        columns: those of the numbers; null for all that hold numbers but `label` and `split`.
        split: the column that says train, val or test; null for `split_fractions`.
        split_fractions: shares of the classes for train, val and test; they sum to 1. Null for 0.64, 0.16 and 0.2, but in each
            split enough classes for its tasks.
        split_seed: of the order in which the sorted classes are dealt to the splits.
        standardise: whether each column is standardised; embeddings of one network may stay as they are.
        kwargs: of ImageEpisodes, but for its encoder.
    """

    things = "rows"

    def __init__(
        self,
        path: Path,
        label: str = "label",
        columns: list[str] | None = None,
        split: str | None = None,
        split_fractions: tuple[float, float, float] | None = None,
        split_seed: int = 0,
        standardise: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if split_fractions:
            check_fractions(split_fractions)
        if self.encoder:
            raise InputError("--data.encoder makes vectors of pictures, and FeatureTable has vectors; leave it out")
        self.path, self.label, self.columns, self.split = Path(path).expanduser(), label, columns, split
        self.split_fractions, self.split_seed, self.standardise = split_fractions, split_seed, standardise

    @cached_property
    def _table(self) -> tuple[list[str], np.ndarray, dict[str, dict[str, np.ndarray]]]:
        """Names of the columns, the numbers, and the numbers of the rows of each class of each split."""
        texts = (self.label, *([self.split] if self.split else []))
        rows = read_feature_rows(self.path, "--data.path", self.columns, texts)
        for option, name in (("label", self.label), ("split", self.split)):
            if name is not None and name not in rows.texts:
                known = ", ".join([*rows.texts, *rows.columns][:8])
                where = "is one of --data.columns" if name in rows.columns else f"is no column of --data.path {self.path}"
                raise InputError(f"--data.{option} {name} {where}, which has {known}; give the name of one")
        labels = rows.texts[self.label]
        if blank := int((np.char.strip(labels.astype(str)) == "").sum()):
            raise InputError(f"--data.path {self.path} has {blank:,} rows without a {self.label}; remove them")
        members = {name: np.flatnonzero(labels == name) for name in sorted(set(labels.tolist()))}
        return rows.columns, rows.values, self._dealt(members, rows.texts)

    def _dealt(self, members: dict[str, np.ndarray], texts: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        if self.split is None:
            ways = (self.train_ways, self.ways, self.ways)
            dealt = deal_classes(list(members), self.split_fractions, self.split_seed, ways, str(self.path))
            return {split: {name: members[name] for name in names} for split, names in dealt.items()}
        found: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
        for name, rows in members.items():
            of_class = sorted(set(texts[self.split][rows].tolist()))
            if len(of_class) > 1 or of_class[0] not in SPLITS:
                raise InputError(
                    f"class {name!r} has {' and '.join(of_class)} in column {self.split}; give each class one of train, val "
                    "and test"
                )
            found[of_class[0]][name] = rows
        if empty := [split for split in SPLITS if not found[split]]:
            raise InputError(f"--data.path {self.path} has no rows of {empty[0]} in column {self.split}; add some")
        return found

    @property
    def input_shape(self) -> tuple[int]:
        return (len(self._table[0]),)

    @cached_property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each column in training."""
        columns, values, splits = self._table
        if not self.standardise:
            return np.zeros(len(columns)), np.ones(len(columns))
        train = values[np.concatenate(list(splits["train"].values()))]
        std = train.std(0)
        return train.mean(0), np.where(std > 0, std, 1.0)  # a column that is the same everywhere says nothing

    def read_split(self, split: str) -> ImageSplit:
        _, values, splits = self._table
        mean, std = self._scale
        rows = np.concatenate(list(splits[split].values()))
        scaled = ((values[rows] - mean) / std).astype(np.float32)
        counts = [len(of_class) for of_class in splits[split].values()]
        digest = sha256(repr((split, list(splits[split]), counts)).encode() + scaled.tobytes()).hexdigest()
        return ImageSplit(scaled, np.array(counts), list(splits[split]), digest)

    def describe_inputs(self) -> dict[str, Any]:
        mean, std = self._scale
        return {"columns": self._table[0], "label": self.label, "mean": mean.tolist(), "std": std.tolist()}

    def describe_task(self) -> dict[str, Any]:
        return {**super().describe_task(), "path": str(self.path), "label": self.label}
