"""The scalars that a run has logged, as they lie in its folder."""

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, each with its `step` and `time`, without a last one that a kill has cut short."""
    with path.open() as file:
        return [json.loads(line) for line in file if line.endswith("\n")]
