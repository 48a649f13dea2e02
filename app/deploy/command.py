"""What the verb `predict` does."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.csv_files import write_csv
from app.deploy.adapted import OTHER, Adapted
from app.deploy.advice import (
    adapted_by,
    by_class,
    class_columns,
    confidence,
    confusions,
    held_out,
    held_out_rows,
    no_better,
    outliers,
    polarity,
)
from app.deploy.checkpoint import restored
from app.deploy.classified import classify_rows
from app.deploy.coverage import set_parts
from app.deploy.figures import curves, is_ours, sheet, values, write_picture
from app.deploy.inputs import Pictures, Polarity
from app.deploy.methods import NAMES
from app.deploy.names import method_name
from app.deploy.pictures import read_query, read_support, status_of
from app.deploy.predictor import Predictor
from app.deploy.table import read_table
from app.deploy.verb import Verb, without_model
from app.errors import InputError
from app.scores.temperature import told_of_intervals
from app.shown import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Predict:
    """Adapts a checkpoint to labelled examples, and predicts others; the checkpoint alone says what it takes.

    Pictures are made as those of training, whatever their size and mode. Each query is answered by itself, however the run was
    tested. Options of the algorithm that do not change its network may follow, such as --model.eval_inner_steps 20. A learner
    that has its examples already answers with --learner instead: see train.py predict --learner X.learner --help.

    Args:
        ckpt_path: file of a checkpoint.
        support: the labelled examples: a folder or .zip of <class>/<picture>; of a regression a .csv with the columns x and y.
        query: what to predict: a folder or .zip of pictures, in folders or not; of a regression a .csv with the columns x.
        out: the table of predictions; a picture of the same name is put beside it.
        export: writes the adapted predictor as a program that torch.export.load reads without this application, a .pt2 file.
        threshold: the label is `other` where no class is at least so probable.
        coverage: a column `set` names the classes that cannot be excluded; it holds the truth of such a share of all queries.
        top: the table names so many of the most probable classes, instead of the probability of every class.
        method: learned, as the checkpoint was trained; feature_mean or pixel_mean, the nearest mean of its features or of raw
            pixels; compare, the one that is right most often of the support pictures that are left out in turn.
        transductive: all queries are normalised together, as MAML's `test` does: what is said of one depends on the others.
        polarity: of pictures of lines, where those of training were white on black: auto for what most of the support set are.
        device: where to compute; null for a GPU where there is one, and for the CPU with --export.
        encoder_weights: file of the weights of the encoder that the checkpoint was trained with, where it is not in its place.
    """

    def __init__(
        self,
        ckpt_path: Path | str,
        support: Path | str,
        query: Path | str,
        out: Path | str = "predictions.csv",
        export: Path | str | None = None,
        threshold: float | None = None,
        coverage: float | None = None,
        top: int | None = None,
        method: Literal["learned", "feature_mean", "pixel_mean", "compare"] = "learned",
        transductive: bool = False,
        polarity: Polarity = "auto",
        device: str | None = None,
        encoder_weights: Path | str | None = None,
    ):
        self.ckpt_path, self.support, self.query, self.out = ckpt_path, support, query, Path(out).expanduser()
        self.export, self.threshold, self.device = export and str(Path(export).expanduser()), threshold, device
        self.coverage, self.top, self.method, self.transductive = coverage, top, method, transductive
        self.polarity, self.weights = polarity, encoder_weights
        if top is not None and top < 1:
            raise InputError(f"--top is {top}; give at least 1")
        if threshold is not None and not 0 < threshold < 1:
            raise InputError(f"--threshold is {threshold}; give a probability between 0 and 1")
        if export is not None and not str(export).endswith(".pt2"):
            raise InputError(f"--export {export} does not end in .pt2; give a file that does")
        # Any other ending may be that of what is read: a checkpoint, an archive, a picture.
        if self.out.suffix.lower() != ".csv" or self.out.is_dir():
            raise InputError(f"--out {out} is no name of a table; give a file that ends in .csv")
        self.picture = self.out.with_suffix(".png")
        if self.picture.exists() and not is_ours(self.picture):
            raise InputError(f"{self.picture} is there already, and no picture of predictions; give --out another name")
        for option, given in (("--support", support), ("--query", query)):
            place = Path(given).expanduser().resolve()
            if place in (self.out.resolve(), *self.out.resolve().parents):
                raise InputError(f"--out {out} is or lies in {option} {given}, which it would change; give another file")

    def run(self, options: dict[str, Any]) -> int:
        """Writes the files and says what was found; the exit status is 1 where some queries could not be read."""
        together = {"transductive": True} if self.transductive else {}
        device = self.device or ("cpu" if self.export else None)
        predictor = restored(self.ckpt_path, device, together | options, self.polarity, self.weights)
        return self._pictures(predictor) if isinstance(predictor.reading, Pictures) else self._table(predictor)

    def _pictures(self, predictor: Predictor) -> int:
        support = read_support(self.support, predictor.reading)
        classes = predictor.check_classes(support.labels, "learned" if self.method == "learned" else "pixel_mean")
        if self.threshold and OTHER in classes:
            raise InputError(f"--support has a class {OTHER!r}, which --threshold answers with; rename its folder")
        query = read_query(self.query, predictor.reading, classes)
        adapted, raw, compared = adapted_by(self.method, predictor, support)
        found = adapted.predict(query.pixels, self.threshold)
        probabilities = found.probabilities.double().numpy()
        known = [truth is not None for truth in query.truths]
        header, columns = class_columns(classes, probabilities, self.top)
        sets, set_columns, of_sets = set_parts(adapted, query, self.coverage)
        rows = zip(query.names, found.labels, probabilities.max(1), *set_columns, *columns, strict=True)
        header = ["file", "label", "probability", *sets, *header]
        score, warnings = None, []
        if adapted.held_out and adapted.method != "pixel_mean":
            warnings += no_better(adapted, adapted.held_out.accuracy, raw.held_out.accuracy, "the support pictures")
        if any(known):
            rows, header = [[*row, truth or ""] for row, truth in zip(rows, query.truths, strict=True)], [*header, "true"]
            own, pixels = (_share(one, query.truths) for one in (found.labels, raw.predict(query.pixels).labels))
            score = f"accuracy {100 * own:.2f} % of the {sum(known)} queries in folders of these classes"
            score += f"; {OTHER!r} counts as wrong" if self.threshold else ""
            score += f"; nearest mean of {predictor.reading.raw} {100 * pixels:.2f} %" if adapted.method != "pixel_mean" else ""
            if adapted.method != "pixel_mean" and not self.threshold:
                warnings += no_better(adapted, own, pixels, "these queries")
        counted = f"{len(classes)} classes, {len(support.labels)} support pictures, {len(query.names)} queries"
        shown = (support, query, found.labels, probabilities.max(1), classes, f"{_name(predictor)}: {counted}", score)
        self.write(header, rows, partial(sheet, *shown))
        lines = [*compared, *polarity(adapted, support, query), *held_out(adapted, raw)]
        lines += [*confidence(adapted, found.labels, probabilities), *confusions(adapted, found.labels, query.truths)]
        lines += [*of_sets, *outliers(adapted, support), *warnings]
        table = by_class(adapted, support, found.labels, probabilities, query.truths)
        self.say(adapted, counted, score, query.pixels, lines, table)
        return status_of(query)

    def _table(self, predictor: Predictor) -> int:
        reading = predictor.reading
        if predictor.algorithm.task_type == "classification":
            return classify_rows(self, predictor)
        of_classes = {"threshold": self.threshold, "top": self.top, "coverage": self.coverage, "method": self.method != "learned"}
        for option, given in of_classes.items():
            if given:
                raise InputError(f"--{option} is for classes, and the checkpoint is of a regression; leave it out")
        support = read_table(self.support, "--support", reading, with_targets=True)
        query = read_table(self.query, "--query", reading, with_targets=False)
        if len(tasks := support.tasks | query.tasks) > 1:
            raise InputError(f"--support and --query are of different tasks, {' and '.join(sorted(tasks))}; give rows of one")
        predicted = [f"{name}_{part}" for part in ("mean", "low95", "high95") for name in reading.y]
        if earlier := [name for name in query.others(reading) if name in predicted]:
            print(f"--query: predicted anew are the columns {', '.join(earlier)}", file=sys.stderr)
            query = query.without(earlier)
        for option, table in (("--support", support), ("--query", query)):
            if others := table.others(reading):
                print(f"{option}: not used are the columns {', '.join(others)}", file=sys.stderr)
        adapted = predictor.adapt(support.x, support.y)
        found = adapted.predict(query.x)
        columns = [found.mean, *(found.interval() or ())]
        header = predicted[: len(columns) * len(reading.y)]
        if clash := [name for name in header if name in query.names]:
            raise InputError(
                f"{self.ckpt_path} was trained on a column {clash[0]}, which is what its predictions are called; "
                "train on a table that calls it otherwise, or use app.load in Python"
            )
        rows = [[*cells, *new] for cells, new in zip(query.cells, np.concatenate(columns, 1).tolist(), strict=True)]
        known = ~np.isnan(query.y).any(1)
        errors = (found.mean.numpy() - query.y)[known]
        score = None
        if known.any():
            parts = (f"{name} {value:.4g}" for name, value in zip(reading.y, np.sqrt((errors**2).mean(0)), strict=True))
            score = f"root mean squared error of the {known.sum()} queries with a target: {', '.join(parts)}"
        draw = curves if len(reading.x) == 1 else values
        counted = f"{len(support.x)} support rows, {len(query.x)} queries"
        title, checked = f"{_name(predictor)}: {counted}", list(held_out_rows(predictor, support.x, support.y))
        if found.interval() and (groups := predictor.algorithm.validated_groups):
            checked.append(("intervals", told_of_intervals(adapted.temperature, groups)))
        self.write([*query.names, *header], rows, partial(draw, adapted, support, query, found, title))
        self.say(adapted, counted, score, query.x, checked)
        return 0

    def write(self, header: list[str], rows: Iterable[Iterable[Any]], draw: Callable[[], "Figure"] | None = None) -> None:
        """The table and the picture, where there is one, each whole or not at all."""
        try:
            write_csv(self.out, [header, *rows])
        except OSError as error:
            raise InputError(f"--out {self.out} cannot be written ({error.strerror or error}); give another file") from error
        if draw is None:
            return
        with drawing(f"the picture {self.picture}"):
            write_picture(self.picture, draw())

    def say(
        self,
        adapted: Adapted,
        counted: str,
        score: str | None,
        query_x: np.ndarray,
        more: Iterable[tuple[str, str]] = (),
        table: str = "",
    ) -> None:
        how = "as it was trained" if adapted.method == "learned" else f"{NAMES[adapted.method]}"
        lines = [("adapted", f"{method_name(adapted.algorithm)}, {how}, {counted}"), ("predictions", str(self.out))]
        lines += [("picture", str(self.picture))] if self.picture.exists() else []
        lines += [("score", score)] if score else []
        if adapted.transductive:
            lines += [("transductive", "the queries are normalised together: what is said of one depends on the others")]
        lines += more
        if self.export:
            adapted.export(self.export, query_x)
            lines += [("program", f"{self.export}, equal to 1e-5")]
        width = max(len(name) for name, _ in lines)
        print(*filter(None, [table]), "\n".join(f"{name:>{width}}  {text}" for name, text in lines), sep="\n")


def _share(labels: list[Any], truths: list[str | None]) -> float:
    """Of the queries whose class is known, those that are right."""
    return float(np.mean([label == truth for label, truth in zip(labels, truths, strict=True) if truth is not None]))


def _name(predictor: Predictor) -> str:
    return type(predictor.algorithm).__name__


def predict(args: list[str]) -> int:
    """Runs the verb and returns the exit status.

    Args:
        args: the command line after the verb.
    """
    given = [*args, "--"]
    flags = [f"{one}=true" if one == "--transductive" and after.startswith("--") else one for one, after in pairwise(given)]
    verb = Verb("predict", Predict, "the checkpoint alone says what the algorithm and the inputs are")
    command, of_model = without_model(verb.read(flags))
    return Predict(**verb.options(command)).run(of_model)
