"""What a learner kept and forgot over a stream: the R matrix, its metrics and what they cost."""

import json
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from rich.table import Table

from app.continual import references
from app.continual.metrics import ACCURACY, Measure, mean_and_interval, measure_of
from app.shown import drawing, only_shown
from callbacks.pictures.picture import save_and_log
from callbacks.pictures.r_matrix import heat_map, write_matrix
from callbacks.test_report import print_table, write_results

if TYPE_CHECKING:
    from app.continual.learner import ContinualLearner

TITLES = {"class": "class-incremental", "task": "task-incremental", "domain": "domain-incremental"}


class StreamReport(Callback):
    """Writes the stream's manifest and, after each scored experience, the R matrix as CSV; at the end metrics and a heat map.

    Of several streams the numbers are the mean over them, with a 95 % interval by Student's t; so is the matrix.

    Attributes:
        headline: the score in a line, once there is one.
    """

    headline = ""

    def __init__(self):
        self._references: dict[str, dict[str, float]] = {}  # of each view, found once

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            stream, folder = trainer.datamodule, Path(trainer.default_root_dir)
            manifest, *others = ({"hash": one.manifest_hash, **one.manifest} for one in stream.abreast)
            manifest |= {"others": others} if others else {}
            with only_shown("stream.json"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "stream.json").write_text(json.dumps(manifest, indent=2) + "\n")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        number = pl_module.evaluated
        if number is None or number < 0 or not trainer.is_global_zero:
            return
        logged = {"stream/experience": number}
        for view, (R, before) in mean_matrices(pl_module).items():
            with only_shown(f"r_matrix_{view}.csv"):
                write_matrix(Path(trainer.default_root_dir) / f"r_matrix_{view}.csv", R, before, titles(trainer))
            seen = R[number, : number + 1]
            score = pl_module.measure.score
            logged |= {f"stream/{score}_seen_{view}": seen.mean(), f"stream/{score}_new_{view}": seen[-1]}
        for logger in trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in logged.items()}, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module)
        if trainer.is_global_zero:
            for view, (R, _) in mean_matrices(pl_module).items():
                if not np.isnan(R).all():  # else stopped before the end of the first experience
                    with drawing(f"the picture stream/R_{view}"):
                        picture = heat_map(R, TITLES[view], pl_module.measure)
                        save_and_log(trainer, f"stream/R_{view}", picture, Path(trainer.default_root_dir))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.num_replicas > 1:  # the fit has written the mean over the streams of all processes
            return
        self._report(trainer, pl_module)

    def _report(self, trainer: Trainer, pl_module: "ContinualLearner") -> None:
        results = self.results(trainer, pl_module)
        if trainer.is_global_zero:
            try:
                write_results(Path(trainer.default_root_dir) / "results.json", results)
            finally:  # a disk that is full
                self.headline = headline(results)
                with only_shown("the table of the results"):
                    for part in tables(results):
                        print_table(part)
                    for line in below_the_simplest(results):
                        print(line)

    def results(self, trainer: Trainer, pl_module: "ContinualLearner") -> dict[str, Any]:
        """Everything that says what was measured, and the numbers; called on all processes."""
        evaluations = pl_module.evaluations
        if pl_module.is_replicated and trainer.state.fn == "fit":
            evaluations = [None] * trainer.world_size
            torch.distributed.all_gather_object(evaluations, pl_module.evaluation)
        stream, method, measure = trainer.datamodule, type(pl_module.method).__name__, pl_module.measure
        if trainer.is_global_zero and stream.cursor == stream.num_steps and not self._references:
            with only_shown("what the simplest learners reach"):
                self._references = references.mean_references(pl_module.stack, pl_module.views)
        too_late = f"{method} learns at the end of the stream alone" if pl_module.method.learns_at_end else "no step was taken"
        return {
            "method": method,
            "stream": type(stream).__name__,
            "scenario": stream.scenario,
            "measure": measure.score,
            "seed": stream.seed,
            "streams": len(evaluations),
            "steps": stream.cursor,
            "views": {
                view: {
                    name: _mean([one["metrics"].get(name) for one in of_view], of_view[0]["undefined"].get(name, ""))
                    for name in measure.names
                }
                for view, of_view in ((view, [one["views"][view] for one in evaluations]) for view in pl_module.views)
            },
            "references": self._references,
            "rate": pl_module.found_rate,
            measure.prequential: _mean([one["prequential"] for one in evaluations], too_late),
            f"{measure.prequential} by experience": {
                title: _mean([one["prequential_of"][number] for one in evaluations], too_late)
                for number, title in enumerate(titles(trainer))
            },
            "cost": {name: _rounded(mean(one["cost"][name] for one in evaluations)) for name in evaluations[0]["cost"]},
            "formulas": measure.formulas,
            "manifest_hash": stream.manifest_hash,
        }


def _mean(values: list[float | None], reason: str) -> dict[str, Any]:
    """Mean and interval, or no value and why it has none."""
    found = mean_and_interval(values)
    if found is None:
        return {"mean": None, "ci95": None, "undefined": reason}
    return {"mean": found[0], "ci95": found[1]} | ({"of_streams": values} if len(values) > 1 else {})


def _rounded(cost: float) -> float:
    """A count whole, seconds to the hundredth."""
    return int(cost) if cost == int(cost) else round(cost, 2)


def mean_matrices(learner: "ContinualLearner") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """R and the scores before any training in each view, means over the streams."""
    evaluations = learner.evaluations
    of_views = {view: [one["views"][view] for one in evaluations] for view in learner.views}
    return {view: tuple(np.mean([one[key] for one in found], 0) for key in ("R", "before")) for view, found in of_views.items()}


def headline(results: dict[str, Any]) -> str:
    """The score at the end of the stream, or over all of it."""
    measure = measure_of(results)
    for view, scores in results["views"].items():
        name = next(iter(scores))
        return " ".join([name, _cell(scores[name], measure), *measure.unit, f"({TITLES[view]})"])
    return " ".join([measure.prequential, _cell(results[measure.prequential], measure), *measure.unit])


def titles(trainer: Trainer) -> list[str]:
    """Of the experiences of the stream; of several, which differ in these, their numbers."""
    stream = trainer.datamodule
    if len(stream.abreast) > 1:
        return [f"experience {number + 1}" for number in range(len(stream.experiences))]
    return [experience.title for experience in stream.experiences]


def tables(results: dict[str, Any]) -> list[Table]:
    """The metrics with their formulas, and the costs."""
    measure = measure_of(results)
    streams = f", mean of {results['streams']} streams" if results["streams"] > 1 else ""
    title = f"{results['method']} on {results['stream']}, seed {results['seed']}{streams}"
    scores = Table(title=title, title_justify="left")
    for name in ("metric", *([TITLES[view] for view in results["views"]] or ["stream"]), "formula"):
        scores.add_column(name, justify="left" if name in ("metric", "formula") else "right")

    def add(name: str, formula: str, *values: dict[str, Any]) -> None:
        reasons = dict.fromkeys(value["undefined"] for value in values if value["mean"] is None)
        others = [""] * (max(len(results["views"]), 1) - len(values))
        scores.add_row(
            name,
            *(_cell(value, measure) for value in values),
            *others,
            formula + "".join(f"; undefined: {why}" for why in reasons),
        )

    formulas = measure.formulas
    for name in measure.names if results["views"] else ():
        add(name, formulas[name], *(view[name] for view in results["views"].values()))
    for name, explained in references.EXPLAINED.items() if results["references"] else ():
        values = [of_view.get(name) for of_view in results["references"].values()]
        if (name == references.OWN and measure is ACCURACY) or any(value is not None for value in values):
            add(name, explained, *({"mean": value, "ci95": None, "undefined": "the network has no body"} for value in values))
    add(measure.prequential, formulas[measure.prequential], results[measure.prequential])
    if not results["views"]:
        for title, value in results[f"{measure.prequential} by experience"].items():
            add(f"... on {title}", "the same, over the steps of that data set", value)
    cost = Table(title="cost", title_justify="left")
    units = {
        "memory_bytes": "memory (bytes)",
        "samples": "samples seen",
        "gradients": "gradients of single samples",
        "seconds": "seconds",
    }
    for name in units.values():
        cost.add_column(name, justify="right")
    cost.add_row(*(f"{results['cost'][name]:,}" for name in units))
    return [scores, cost]


def below_the_simplest(results: dict[str, Any]) -> list[str]:
    """A line for each view in which the method ended no better than a learner without a network, or below its own features."""
    lines = []
    for view, found in results["references"].items():
        measure = measure_of(results)
        score, sign = results["views"][view][measure.names[0]]["mean"], measure.sign
        # As good as its own features is good, and nothing is better than the exact posterior on the same.
        of = {name: (sign * own, name != references.OWN) for name, own in found.items() if name != references.POSTERIOR}
        better = [name for name, own in of.items() if score is not None and own > (sign * score, False)]
        if best := max(better, key=of.__getitem__, default=""):
            lines.append(
                f"warning: {results['method']} ends at {measure.words(score)} ({TITLES[view]}), no better than "
                f"{'the ' * (best != references.CHANCE)}{best}, {measure.words(found[best])}; more --model.method.glances, "
                f"another learning rate or --model.method {'NearestClassMean' if sign > 0 else 'BayesianLinear'} may serve better"
            )
    return lines


def _cell(value: dict[str, Any], measure: Measure) -> str:
    if value["mean"] is None:
        return "-"
    interval = "" if value["ci95"] is None else f" ± {measure.number(value['ci95'])}"
    return f"{measure.number(value['mean'])}{interval}"
