"""The verb `predict` with a learner, which has its examples already."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.deploy.adapted import OTHER
from app.deploy.advice import class_columns, confidence, turned
from app.deploy.classified import answer_rows
from app.deploy.command import Predict
from app.deploy.coverage import set_parts
from app.deploy.examples import answers_in_tasks
from app.deploy.figures import curves, sheet, values
from app.deploy.inputs import FeatureColumns, Pictures
from app.deploy.living_learner import LivingLearner
from app.deploy.names import method_name
from app.deploy.pictures import Support, read_query, status_of
from app.deploy.table import no_rows, read_table
from app.deploy.verb import OF_MODEL, Verb
from app.errors import InputError, UsageError


class PredictLearner(Predict):
    """Asks a learner that lives: it knows what it has learned, and answers each query by itself.

    Args:
        learner: its file.
        query: what to predict: a folder or .zip of pictures, in folders or not; of a FeatureTable a .npz, .csv or .parquet with
            its columns; of a regression a .csv with the columns x, and the column that named the tasks in training, or --task.
        out: the table of predictions; a picture of the same name is put beside it.
        export: writes what the learner knows as a program that torch.export.load reads without this application, a .pt2 file.
        threshold: the label is `other` where no class is at least so probable.
        coverage: a column `set` names the classes that cannot be excluded; it holds the truth of such a share of all queries.
        top: the table names so many of the most probable classes, instead of the probability of every class.
        task: of a regression, the task that the rows of a table without such a column are of.
        device: where to compute; null for a GPU where there is one, and for the CPU with --export.
        encoder_weights: file of the weights of the encoder that the checkpoint was trained with, where it is not in its place.
    """

    def __init__(
        self,
        learner: Path | str,
        query: Path | str,
        out: Path | str = "predictions.csv",
        export: Path | str | None = None,
        threshold: float | None = None,
        coverage: float | None = None,
        top: int | None = None,
        task: str | None = None,
        device: str | None = None,
        encoder_weights: Path | str | None = None,
    ):
        super().__init__(
            learner, query, query, out, export, threshold, coverage, top, device=device, encoder_weights=encoder_weights
        )
        self.task = task

    def run(self, options: dict[str, Any]) -> int:
        knows = LivingLearner.load(self.ckpt_path, self.device or ("cpu" if self.export else None), self.weights)
        if isinstance(knows.predictor.reading, FeatureColumns):
            return answer_rows(self, knows.adapted(), knows.num_examples, [])
        return self._named(knows) if isinstance(knows.predictor.reading, Pictures) else self._valued(knows)

    def _named(self, knows: LivingLearner) -> int:
        """Writes what pictures are."""
        adapted = knows.adapted()
        query = read_query(self.query, adapted.reading, adapted.classes)
        found = adapted.predict(query.pixels, self.threshold)
        probabilities = found.probabilities.double().numpy()
        header, columns = class_columns(adapted.classes, probabilities, self.top)
        sets, set_columns, of_sets = set_parts(adapted, query, self.coverage)
        header = ["file", "label", "probability", *sets, *header]
        rows = zip(query.names, found.labels, probabilities.max(1), *set_columns, *columns, strict=True)
        right = [label == truth for label, truth in zip(found.labels, query.truths, strict=True) if truth is not None]
        score = None
        if right:
            rows, header = [[*row, truth or ""] for row, truth in zip(rows, query.truths, strict=True)], [*header, "true"]
            score = f"accuracy {100 * np.mean(right):.2f} % of the {len(right)} queries in folders of these classes"
            score += f"; {OTHER!r} counts as wrong" if self.threshold else ""
        counted = f"{len(adapted.classes)} classes, {knows.num_examples} support pictures, {len(query.names)} queries"
        support = Support(np.zeros((0, *adapted.reading.shape), np.uint8), [], [])
        title = f"{method_name(adapted.algorithm)}: {counted}"
        self.write(
            header, rows, partial(sheet, support, query, found.labels, probabilities.max(1), adapted.classes, title, score)
        )
        lines = [*confidence(adapted, found.labels, probabilities), *of_sets, *turned(adapted.reading, "--query", query.pixels)]
        self.say(adapted, counted, score, query.pixels, lines)
        return status_of(query)

    def _valued(self, knows: LivingLearner) -> int:
        """Writes the values of a regression."""
        reading = knows.predictor.reading
        if knows.is_classification:
            raise InputError(f"{self.ckpt_path} classifies rows of numbers, which are read of no file; use app.load_learner")
        query = read_table(self.query, "--query", reading, with_targets=False, one_task=False)
        predicted = [f"{name}_{part}" for part in ("mean", "low95", "high95") for name in reading.y]
        query = query.without([name for name in query.others(reading) if name in predicted])
        adapted, found = answers_in_tasks(knows, query, self.task)
        columns = [found.mean, *(found.interval() or ())]
        header = [*query.names, *predicted[: len(columns) * len(reading.y)]]
        rows = [[*cells, *new] for cells, new in zip(query.cells, np.concatenate(columns, 1).tolist(), strict=True)]
        known = ~np.isnan(query.y).any(1)
        errors, score = (found.mean.numpy() - query.y)[known], None
        if known.any():
            parts = (f"{name} {value:.4g}" for name, value in zip(reading.y, np.sqrt((errors**2).mean(0)), strict=True))
            score = f"root mean squared error of the {known.sum()} queries with a target: {', '.join(parts)}"
        counted = f"{len(knows.classes)} tasks, {knows.num_examples} support rows, {len(query.x)} queries"
        title = f"{method_name(adapted.algorithm)}: {counted}"
        draw = curves if len(reading.x) == 1 and len(query.tasks) < 2 else values
        self.write(header, rows, partial(draw, adapted, no_rows(reading), query, found, title))
        self.say(adapted, counted, score, query.x)
        return 0


def predict_learner(args: list[str]) -> int:
    """Runs the verb and returns the exit status.

    Args:
        args: the command line after the verb.
    """
    why = "the learner alone says what the algorithm and the inputs are"
    verb = Verb("predict", PredictLearner, why, "predict --learner X.learner")
    command = verb.read(args)
    if both := [name for name, _ in command.options if name in ("ckpt_path", "support") or name.startswith(OF_MODEL)]:
        raise UsageError(f"--{both[0]} is given beside --learner, which has its checkpoint and its examples; leave one out")
    return PredictLearner(**verb.options(command)).run({})
