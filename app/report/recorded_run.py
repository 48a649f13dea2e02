"""What lies in the folder of a run."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app.csv_files import read_rows
from app.errors import InputError
from app.runs.commands import resume
from app.runs.recorded_metrics import METRICS, read_metrics

PICTURE = re.compile(r"(.+)_(\d{7,})\.png")
TABLES = {"test_classes.csv": "classes", "test_confusions.csv": "confused classes"}


class RecordedRun(NamedTuple):
    """A run as it was recorded.

    Attributes:
        path: its folder.
        label: what tells it from the others on the page.
        colour: its number there.
        scalars: name -> points (step, value) in the order of the steps.
        results: content of results.json; empty before a test.
        config: content of config.yaml.
        environment: content of environment.json.
        pictures: name -> step -> file.
        tables: title -> rows, the first of them the columns.
    """

    path: Path
    label: str
    colour: int
    scalars: dict[str, list[tuple[int, float]]]
    results: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    pictures: dict[str, dict[int, Path]]
    tables: dict[str, list[list[str]]]

    @property
    def names(self) -> tuple[str, str]:
        """The algorithm, or a stream's method, and the data set."""
        found = []
        for section in ("model", "data"):
            content = self.config.get(section) or {}
            method = (content.get("init_args") or {}).get("method")
            content = method if isinstance(method, dict) and "class_path" in method else content
            found.append(str(content.get("class_path", "")).rsplit(".", 1)[-1])
        return found[0], found[1]

    @property
    def last_step(self) -> int | None:
        """The last step that was logged."""
        return max((points[-1][0] for points in self.scalars.values()), default=None)


def read_runs(paths: list[Path]) -> list[RecordedRun]:
    """The runs in these folders.

    Raises:
        InputError: a folder holds no run, or one without results, or a file in it is damaged.
    """
    paths = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    return [_read_run(path, label, colour) for colour, (path, label) in enumerate(zip(paths, _labels(paths), strict=True))]


def _labels(paths: list[Path]) -> list[str]:
    """The ends of the paths, as long as it takes to tell them apart; of a time that names a folder, the folder above too."""
    length = 2 if any(re.fullmatch(r"\d{4}-\d\d-\d\d_.*", path.name) for path in paths) else 1
    while len({path.parts[-length:] for path in paths}) < len(paths):
        length += 1
    return ["/".join(path.parts[-length:]) for path in paths]


def _read_run(path: Path, label: str, colour: int) -> RecordedRun:
    if not path.is_dir():
        raise InputError(f"RUN_DIR {path} does not exist; give the folder of a run, which `train.py fit` names at its end")
    if not any((path / name).exists() for name in ("config.yaml", METRICS, "results.json")):
        raise InputError(
            f"RUN_DIR {path} is not the folder of a run: it has no config.yaml, {METRICS} or results.json; give one that "
            f"`train.py fit` wrote{_runs_below(path)}"
        )
    if not any((path / name).exists() for name in (METRICS, "results.json")):
        raise InputError(f"RUN_DIR {path} has no results yet, neither {METRICS} nor results.json; go on with it: {resume(path)}")
    return RecordedRun(
        path,
        label,
        colour,
        _scalars(path / METRICS),
        _content(path / "results.json", json.loads),
        _content(path / "config.yaml", yaml.safe_load),
        _content(path / "environment.json", json.loads),
        _pictures(path / "pictures"),
        {title: _table(path / name) for name, title in TABLES.items() if (path / name).exists()},
    )


def _runs_below(path: Path) -> str:
    """The runs within the folder, where it is one of several."""
    found = sorted({str(file.parent) for pattern in ("*/config.yaml", "*/*/config.yaml") for file in path.glob(pattern)})
    return f", such as {' '.join(found[:3])}" if found else ""


def _content(path: Path, parse: Any) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = parse(path.read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
        return content
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); delete it to leave it out") from error


def _scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    if not path.exists():
        return {}
    try:
        rows = read_metrics(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); delete it to leave it out") from error
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "time", "epoch") and value is not None:
                found.setdefault(name, {})[row["step"]] = value
    return {name: sorted(points.items()) for name, points in found.items()}


def _pictures(folder: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        if match := PICTURE.fullmatch(path.name):
            found.setdefault(match[1], {})[int(match[2])] = path
    return found


def _table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [cells for _, cells in read_rows(file)]
