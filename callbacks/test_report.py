"""What `test` found, as a table and as results.json."""

import json
import math
import os
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

MANY_STEPS = 20


class TestReport(Callback):
    """Prints the score at each stage of the adaptation and writes `results.json`; results of other checkpoints there are kept."""

    __test__ = False  # not a test, whatever pytest makes of the name

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        results = self.results(trainer, pl_module)
        write_results(Path(trainer.default_root_dir) / "results.json", results)
        Console().print(table(results))

    def results(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Everything that says what was measured, and the numbers."""
        evaluation = pl_module.evaluation
        scores = {
            name: {"inner_steps": evaluation["inner_steps"], **{key: list(map(_finite, values)) for key, values in score.items()}}
            for name, score in evaluation["scores"].items()
        }
        return {
            "algorithm": type(pl_module).__name__,
            "data": type(trainer.datamodule).__name__,
            **trainer.datamodule.describe_task(),
            **pl_module.describe_method(),
            "num_episodes": evaluation["num_episodes"],
            "score": pl_module.score_name,
            **scores,
            "seed": trainer.datamodule.seed,
            "global_step": pl_module.trained_steps,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "data_manifest_hash": trainer.datamodule.manifest_hash,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the file beside and renames it; a file with other content that lies there is renamed to results.<number>.json."""
    text = json.dumps(results, indent=2) + "\n"
    if path.exists() and path.read_text() != text:
        number = 1
        while (kept := path.with_name(f"results.{number}.json")).exists():
            number += 1
        os.replace(path, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)


def table(results: dict[str, Any]) -> Table:
    """The score at each stage of the adaptation; of many stages the first, the last and those of a power of two."""
    score, stages = results["score"], results[results["score"]]
    percent = score == "accuracy"
    task = ", ".join(f"{results[key]} {key}" for key in ("ways", "shots", "queries") if results.get(key))
    mode = "transductive" if results["transductive"] else "non-transductive"
    title = f"{results['algorithm']} on {results['data']}: {results['num_episodes']} test episodes, {task}, {mode}"
    result = Table(title=title, title_justify="left")
    result.add_column("inner steps", justify="right")
    result.add_column(f"{score}{' (%)' if percent else ''}", justify="right")
    result.add_column("95 % interval", justify="right")
    last = stages["inner_steps"][-1]
    for steps, mean, ci95 in zip(stages["inner_steps"], stages["mean"], stages["ci95"], strict=True):
        if last > MANY_STEPS and steps & (steps - 1) and steps != last:
            continue
        numbers = [f"{value * 100:.2f}" if percent else f"{value:.4f}" for value in (mean, ci95 or 0.0)]
        label = str(steps) if steps or len(stages["mean"]) == 1 else "0 (before adaptation)"
        result.add_row(label, numbers[0], f"± {numbers[1]}" if ci95 is not None else "one episode")
    return result
