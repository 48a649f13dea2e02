"""The rows of RESULTS.md, as benchmarks/rows.yaml lists them."""

import json
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.stream_row import StreamRow

# All paths are those of a checkout in which the commands are given.
LIST = Path("benchmarks") / "rows.yaml"
EXPERIMENTS = Path("configs") / "experiment"
TRAINER = Path("configs") / "trainer" / "row.yaml"


class Number(NamedTuple):
    """A score.

    Attributes:
        mean: accuracies in %; null where it is not finite.
        ci95: half width of its 95 % interval, or what its source prints for it; null where there is none.
    """

    mean: float | None
    ci95: float | None = None

    @classmethod
    def read(cls, text: str | float) -> "Number":
        """Of `98.7 ± 0.4` or `98.7`."""
        mean, _, ci95 = str(text).partition("±")
        return cls(float(mean), float(ci95) if ci95 else None)


class Score(NamedTuple):
    """Which number of a test's results.json stands in a column of a group's table.

    Attributes:
        label: of the column.
        name: of the score.
        stage: inner steps after which it is taken; null for the last that there are.
        part: the group of test episodes; null for all.
    """

    label: str
    name: str
    stage: int | None = None
    part: str | None = None


@dataclass(frozen=True)
class Group:
    """Rows that stand in one table.

    Attributes:
        name: of the group.
        title: above the table.
        text: below the title; null for none.
        scores: the columns of numbers.
        files: whether the data are files, which `--data.data_dir` says the folder of.
        lower_is_better: of the scores.
        digits: of a score, behind the point.
    """

    name: str
    title: str
    scores: tuple[Score, ...]
    text: str | None = None
    files: bool = False
    lower_is_better: bool = False
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """A row: what is trained, how it is tested, and what was published.

    Attributes:
        name: of the row, its record and, unless `of` is given, the folder of its run.
        group: whose table it stands in.
        method: as the table calls it.
        config: name of the file in configs/experiment.
        options: of the training, and so of the test; DIR in them stands for the folder of the data's files.
        test: options of the test alone.
        of: name of the row whose training this is, too; null for one of its own.
        published: a number for each score of the group, null where there is none; empty where nothing is published.
        source: of the published numbers.
        budget: outer steps of the source; null for those of the config.
        note: what else is to be said, or why a row falls short; null for nothing.
        why_not: why it cannot be run here; null where it can.
    """

    name: str
    group: Group
    method: str
    config: str
    options: str = ""
    test: str = ""
    of: str | None = None
    published: tuple[Number | None, ...] = ()
    source: str | None = None
    budget: int | None = None
    note: str | None = None
    why_not: str | None = None

    @property
    def training(self) -> str:
        """The name of the training: rows that share it have the same."""
        return self.of or self.name

    def fit(self, data_dir: str) -> list[str]:
        """Arguments of train.py; with `--ckpt_path last` they go on with what was broken off."""
        where = ["--trainer.default_root_dir", f"runs/rows/{self.training}", *self._data(data_dir)]
        options = [word.replace("DIR", data_dir) for word in shlex.split(self.options)]
        return ["fit", "--config", str(self._config), "--trainer", str(TRAINER), *options, *where]

    def tested(self, data_dir: str, checkpoint: str) -> list[str]:
        """Arguments of train.py for the test of a checkpoint of the training."""
        run = f"runs/rows/{self.training}"
        where = ["--trainer.default_root_dir", f"runs/rows/{self.name}", *self._data(data_dir)]
        found = ["test", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/{checkpoint}.ckpt"]
        return [*found, *shlex.split(self.test), *where]

    def _data(self, data_dir: str) -> list[str]:
        return ["--data.data_dir", data_dir] if self.group.files else []

    @property
    def _config(self) -> Path:
        return EXPERIMENTS / f"{self.config}.yaml"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What its config file says."""
        return yaml.safe_load(self._config.read_text())

    @property
    def steps(self) -> int:
        """Outer steps of the whole training."""
        chosen = re.search(r"--trainer\.max_steps[ =](\d+)", self.options)
        return int(chosen[1]) if chosen else self.settings["trainer"]["max_steps"]

    @cached_property
    def recipe(self) -> str:
        """Identifies config, options and protocol: another one is another row."""
        return _digest([self.settings, yaml.safe_load(TRAINER.read_text()), self.options, self.test])

    @cached_property
    def training_recipe(self) -> str:
        """Identifies config and options of the training."""
        return _digest([self.settings, yaml.safe_load(TRAINER.read_text()), self.options])

    def is_recorded(self, record: dict[str, Any] | None) -> bool:
        """Whether a record is of the settings that the row has now, and of a training that came to its end."""
        if record is None or record["kind"] != "row" or record["recipe"] != self.recipe:
            return False
        return record["flat"] or record["steps"] >= self.steps


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_rows(path: Path = LIST) -> list[Row | StreamRow]:
    """All rows and streams, in the order in which they are trained.

    Raises:
        ValueError: a row is described wrongly.
    """
    rows: dict[str, Row | StreamRow] = {}
    for group_name, described in yaml.safe_load(path.read_text()).items():
        if group_name == "streams":
            rows |= {name: StreamRow(name, **entry) for name, entry in described.items()}
            continue
        of_group = dict(described)
        entries = of_group.pop("rows")
        scores = tuple(Score(label, **score) for label, score in of_group.pop("scores").items())
        group = Group(group_name, scores=scores, **of_group)
        for name, entry in entries.items():
            if name in rows:
                raise ValueError(f"{path.name} has two rows {name}; rename one")
            rows[name] = _row(name, group, entry, rows, path.name)
    return list(rows.values())


def _row(name: str, group: Group, entry: dict[str, Any], rows: dict[str, Row], where: str) -> Row:
    entry = dict(entry)
    published = entry.pop("published", [])
    published = published if isinstance(published, list) else [published]
    if published and len(published) != len(group.scores):
        raise ValueError(f"{where}: {name} has {len(published)} published numbers for {len(group.scores)} scores")
    if published and "source" not in entry:
        raise ValueError(f"{where}: {name} has a published number without a source")
    if (of := entry.get("of")) is not None:
        if of not in rows:
            raise ValueError(f"{where}: {name} is of {of}, which does not stand above it")
        entry = {"config": rows[of].config, "options": rows[of].options, "budget": rows[of].budget, **entry}
    try:
        return Row(name, group, published=tuple(None if one is None else Number.read(one) for one in published), **entry)
    except TypeError as error:
        raise ValueError(f"{where}: {name}: {error}") from error
