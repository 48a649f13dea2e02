"""The records that RESULTS.md is made of: one file of `results/` for every row or table."""

import json
import os
from pathlib import Path
from typing import Any

RECORDS = Path("results")


def path_of(name: str, folder: Path = RECORDS) -> Path:
    """The file of a record."""
    return folder / f"{name}.json"


def read_record(name: str, folder: Path = RECORDS) -> dict[str, Any] | None:
    """A record; null where there is none."""
    path = path_of(name, folder)
    return json.loads(path.read_text()) if path.exists() else None


def read_records(folder: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """All records by their names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def write_record(name: str, record: dict[str, Any], folder: Path = RECORDS) -> Path:
    """Writes a record beside its place, flushes it to the disk and renames it: a kill leaves a whole one, old or new."""
    path = path_of(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w") as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return path


def is_short(record: dict[str, Any]) -> bool:
    """Whether a training ended before its budget, and not because validation no longer improved."""
    if record["kind"] not in ("row", "transcribed"):
        return False
    steps = record.get("steps")
    return steps is None or (steps < record["budget"] and not record.get("flat"))
