"""What `test` found, as a table and as results.json."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich import get_console
from rich.console import Console
from rich.table import Table

from app.errors import InputError
from app.scores.temperature import told_of_intervals
from app.shown import only_shown
from callbacks.progress_lines import has_terminal

SINGULAR = {"ways": "way", "shots": "shot", "queries": "query"}
MANY_STEPS, MANY_SCORES = 20, 5
FILE_WIDTH = 120  # of a table that is written to a file


class TestReport(Callback):
    """Prints the score at each stage of the adaptation and writes `results.json`; results of other checkpoints there are kept.

    Attributes:
        headline: the score in a line, once there is one.
    """

    headline = ""
    __test__ = False  # not a test, whatever pytest makes of the name

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        results = self.results(trainer, pl_module)
        try:
            write_results(Path(trainer.default_root_dir) / "results.json", results)
        finally:  # a disk that is full
            self.headline = headline(results)
            with only_shown("the table of the results"):
                print_table(table(results))
                for line in warnings(results):
                    print(line)

    def results(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Everything that says what was measured, and the numbers."""
        evaluation = pl_module.evaluation
        whole = _part(evaluation, evaluation["inner_steps"])
        if "groups" in evaluation:
            whole["groups"] = {group: _part(part, evaluation["inner_steps"]) for group, part in evaluation["groups"].items()}
        return {
            "algorithm": type(pl_module).__name__,
            "data": type(trainer.datamodule).__name__,
            **trainer.datamodule.describe_task(),
            **pl_module.describe_algorithm(),
            "score": pl_module.score_name,
            **whole,
            **({"calibration": evaluation["calibration"]} if "calibration" in evaluation else {}),
            "seed": trainer.datamodule.seed,
            "global_step": pl_module.trained_steps,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "data_manifest_hash": trainer.datamodule.manifest_hash,
        }


def warnings(results: dict[str, Any]) -> list[str]:
    """A line for each simple thing that the learner is no better than: no adaptation, and other predictors."""
    name, lines = results["score"], []
    sign, means = (1 if "mse" in name else -1), results[name]["mean"]
    if len(means) > 1 and None not in (means[0], means[-1]) and sign * means[-1] > sign * means[0]:
        lines.append(
            f"warning: after the adaptation the {name} is worse than before, {means[-1]:.4f} against {means[0]:.4f}; "
            f"lower --model.inner_lr or --model.eval_inner_steps"
        )
    errors = (results.get("mse") or {}).get("mean", [None])
    for predictor, scores in results.get("references", {}).items():
        other = scores.get("mse", {}).get("mean")
        if None not in (errors[-1], other) and errors[-1] >= other:
            lines.append(f"warning: the mse, {errors[-1]:.4f}, is no better than that of the {predictor}, {other:.4f}")
    return lines


def _part(summary: dict[str, Any], inner_steps: list[int]) -> dict[str, Any]:
    """The numbers of all episodes, or of one group."""
    scores = {name: {"inner_steps": inner_steps, **score} for name, score in summary["scores"].items()}
    references = {"references": summary["references"]} if summary["references"] else {}
    return _finite({"num_episodes": summary["num_episodes"], **scores, **references})


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values  # JSON has no NaN


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the file beside and renames it; a file with other content that lies there is renamed to results.<number>.json.

    Raises:
        InputError: the file cannot be written.
    """
    text, beside = json.dumps(_finite(results), indent=2) + "\n", path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        if path.exists() and path.read_text() != text:
            number = 1
            while (kept := path.with_name(f"results.{number}.json")).exists():
                number += 1
            os.replace(path, kept)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); free space, then test again: only what is printed is kept"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def print_table(shown: Table) -> None:
    """Prints it above the progress bar, if there is one; its title and caption as whole lines, whatever its width."""
    console = get_console() if has_terminal() else Console(width=FILE_WIDTH)
    title, caption, shown.title, shown.caption = shown.title, shown.caption, None, None
    for part in (title, shown, caption):
        if part:
            console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)


def headline(results: dict[str, Any]) -> str:
    """The score after the adaptation, and of what."""
    name = results["score"]
    score, unit = _cell(name, *(results[name][key][-1] for key in ("mean", "ci95"))), " %" if "accuracy" in name else ""
    of = ", ".join([f"{results['num_episodes']} episodes", *_task(results)])
    return f"test {name.replace('_', ' ')} {score}{unit} ({of})"


def _task(results: dict[str, Any]) -> list[str]:
    counts = {key: results[key] for key in ("ways", "shots", "queries") if results.get(key)}
    task = [f"{count} {key if count > 1 else SINGULAR[key]}" for key, count in counts.items()]
    task += [f"{'-'.join(map(str, results['num_context']))} context points"] if results.get("num_context") else []
    task += [f"outputs: {results['deployment_outputs']}"] if results.get("deployment_outputs") else []
    return task + ([results["units"]] if results.get("units") else [])


def table(results: dict[str, Any]) -> Table:
    """The scores at each stage of the adaptation and of other predictors; of each group after the adaptation."""
    main = results["score"]
    others = [name for name, value in results.items() if isinstance(value, dict) and "inner_steps" in value]
    names = [main, *(name for name in others if name not in (main, "loss"))]
    mode = "transductive" if results["transductive"] else "non-transductive"
    of = ", ".join([f"{results['num_episodes']} test episodes", *_task(results), mode])
    title = f"{results['algorithm']} on {results['data']}: {of}"
    result = Table(title=title, title_justify="left", caption=_calibration(results), caption_justify="left")
    if len(names) >= MANY_SCORES and len(results[main]["inner_steps"]) == 1:
        return _by_score(result, results, names)
    result.add_column("inner steps" if len(results[main]["inner_steps"]) > 1 else "", justify="right")
    for name in names:
        result.add_column(f"{name}{' (%)' if 'accuracy' in name else ''} ± 95 % interval", justify="right")
    for row in _rows(results, names, results["algorithm"], all_stages=True):
        result.add_row(*row)
    for group, part in results.get("groups", {}).items():
        result.add_section()
        result.add_row(f"[bold]{group}[/bold]: {part['num_episodes']}")
        for row in _rows(part, names, results["algorithm"], all_stages=False):
            result.add_row(*row)
    return result


def _calibration(results: dict[str, Any]) -> str | None:
    if of_intervals := results.get("intervals"):
        return told_of_intervals(of_intervals["factor"], of_intervals["validation_tasks"])
    if "calibration" not in results:
        return None
    found = results["calibration"]
    error = f"{100 * found['error']:.2f} %" if found["bins"] else "not finite"
    lines = [f"expected calibration error {error} ({found['num_queries']:,} queries)"]
    if "brier" in found:
        lines[0] += f", Brier score {found['brier']:.4f}, log-likelihood {found['log_likelihood']:.4f} nats"
    if "deployed" in found:
        deployed = found["deployed"]
        how = f"each query by itself, at temperature {deployed['temperature']:.2f}, as predict answers"
        lines.append(f"{how}: {100 * deployed['error']:.2f} % ({deployed['num_queries']:,} queries)")
    for level, of_sets in found.get("sets", {}).items():
        share = f"sets at {100 * float(level):g} % hold the truth in {100 * of_sets['coverage']:.1f} %"
        lines.append(f"{share}, {of_sets['mean_size']:.2f} classes on average ({of_sets['num_queries']:,} queries)")
    return "\n".join(lines)


def _by_score(result: Table, results: dict[str, Any], names: list[str]) -> Table:
    """A row for each of many scores, a column for all episodes and for each group."""
    parts = {"all": results, **results.get("groups", {})}
    result.add_column("± 95 % interval")
    for label, part in parts.items():
        result.add_column(f"{label}: {part['num_episodes']}", justify="right")
    for name in names:
        cells = [_cell(name, *(part[name][key][-1] for key in ("mean", "ci95"))) for part in parts.values()]
        result.add_row(f"{name.replace('_', ' ')}{' (%)' if 'accuracy' in name else ''}", *cells)
    return result


def _rows(part: dict[str, Any], names: list[str], algorithm: str, all_stages: bool) -> Iterator[list[str]]:
    """Label and cells of each row: the stages, then other predictors, each with the algorithm's score minus its own."""
    stages = part[names[0]]["inner_steps"]
    for position in range(len(stages)) if all_stages else [len(stages) - 1]:
        if stages[-1] > MANY_STEPS and stages[position] & (stages[position] - 1) and stages[position] != stages[-1]:
            continue
        label = str(stages[position]) if stages[position] else "0 (before adaptation)"
        label = label if len(stages) > 1 else algorithm  # which adapts in one stage
        yield [label, *(_cell(name, *(part[name][key][position] for key in ("mean", "ci95"))) for name in names)]
    for predictor, scores in part.get("references", {}).items():
        for label, prefix in ((predictor, ""), (f"difference to {predictor}", "difference_")):
            found = {name: [score.get(f"{prefix}{key}") for key in ("mean", "ci95")] for name, score in scores.items()}
            yield [label, *(_cell(name, *found[name]) if name in found else "" for name in names)]


def _cell(name: str, mean: float | None, ci95: float | None) -> str:
    scale, digits = (100, 2) if "accuracy" in name else (1, 4)
    score = "not finite" if mean is None else f"{mean * scale:.{digits}f}"
    return f"{score}, one episode" if ci95 is None else f"{score} ± {ci95 * scale:.{digits}f}"
