"""The record of a row, from the folders of its run and its test."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import describe_machine
from benchmarks.row import Number, Row, Score
from benchmarks.row_progress import RUNS, Fit, read_fit, validated

PATHS = ("default_root_dir", "data_dir", "cache_dir", "save_dir", "ckpt_path", "weights")


def record_of(row: Row) -> dict[str, Any]:
    """All that a record says, from the folders of the run and of its test."""
    run, own = RUNS / row.training, RUNS / row.name
    results = json.loads((own / "results.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    fit, machine = read_fit(run), describe_machine()
    checkpoint = Path(results["checkpoint"]).stem
    published = row.published or (None,) * len(row.group.scores)
    numbers = {score.label: (pick(results, score), one) for score, one in zip(row.group.scores, published, strict=True)}
    task = ("algorithm", "data", "ways", "shots", "queries", "num_context", "num_target", "units", "transductive")
    return {
        "kind": "row",
        "row": row.name,
        "group": row.group.name,
        "method": row.method,
        "commands": [_command(row.fit("DIR")), _command(row.tested("DIR", checkpoint))],
        "scores": {
            label: {
                "mean": own.mean,
                "ci95": own.ci95,
                "published": theirs and theirs.mean,
                "published_ci95": theirs and theirs.ci95,
            }
            for label, (own, theirs) in numbers.items()
            if own is not None
        },
        "references": references(results, row.group.scores),
        "episodes": results["num_episodes"],
        "source": row.source,
        "note": row.note,
        "steps": fit.steps,
        "budget": row.budget or row.steps,
        "flat": fit.ended,
        "ended": _end(row, fit),
        "checkpoint_step": results["global_step"],
        "seconds": round(fit.seconds),
        "processor_seconds": round(fit.processor_seconds),
        "shared": fit.processor_seconds < 0.9 * fit.seconds or machine["load"] > machine["cores"] + 0.5,
        "device": machine["device"] if environment["device"] == "cpu" else environment["device"],
        "threads": environment["threads"],
        "seed": results["seed"],
        "protocol": {name: results[name] for name in task if results.get(name) is not None} | _split(config),
        "data_hash": results["data_manifest_hash"],
        "config_hash": _config_hash(config),
        "recipe": row.recipe,
        "commit": environment["git_commit"],
        "versions": {name: environment[name] for name in ("python", "torch", "lightning", "numpy")},
        "curve": curve(run / "metrics.jsonl"),
    }


def _end(row: Row, fit: Fit) -> str:
    if fit.ended:
        return f"validation had not improved since step {fit.best_step:,}"
    return "after its last step" if fit.steps >= row.steps else f"not yet, at {fit.steps:,} of {row.steps:,} steps"


def pick(results: dict[str, Any], score: Score) -> Number | None:
    """One number of results.json, accuracies in %; null where the test took no so many inner steps."""
    part = results["groups"][score.part] if score.part else results
    values = part[score.name]
    if score.stage is not None and score.stage not in values["inner_steps"]:
        return None
    at = values["inner_steps"].index(score.stage) if score.stage is not None else -1
    return _number(score, values["mean"][at], values["ci95"][at])


def references(results: dict[str, Any], scores: tuple[Score, ...]) -> dict[str, list[Number | None]]:
    """What other predictors reach on the same episodes, for each score."""
    found: dict[str, list[Number | None]] = {}
    for score in scores:
        part = results["groups"][score.part] if score.part else results
        for predictor, values in part.get("references", {}).items():
            value = values.get(score.name)
            found.setdefault(predictor, []).append(value and _number(score, value["mean"], value["ci95"]))
    return found


def _number(score: Score, mean: float | None, ci95: float | None) -> Number:
    scale = 100.0 if "accuracy" in score.name else 1.0
    return Number(*(None if value is None else round(scale * value, 4) for value in (mean, ci95)))


def curve(path: Path) -> list[tuple[int, float]]:
    """Step and score of every validation of a fit."""
    found = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if (score := validated(row)) is not None:
            found[row["step"] + 1] = round(score, 5)
    return sorted(found.items())


def _split(config: dict[str, Any]) -> dict[str, Any]:
    """What the config says of the classes."""
    options = config["data"]["init_args"]
    return {name: value for name, value in options.items() if name.startswith(("split_protocol", "split_seed", "rotat"))}


def _command(arguments: list[str]) -> str:
    return " ".join(["uv run train.py", *arguments])


def _config_hash(config: dict[str, Any]) -> str:
    """Of the resolved config, without the folders of this machine."""

    def without_paths(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_paths(part) for name, part in value.items() if name not in PATHS}
        return [without_paths(part) for part in value] if isinstance(value, list) else value

    return sha256(json.dumps(without_paths(config), sort_keys=True).encode()).hexdigest()[:16]
