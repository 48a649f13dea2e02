"""Rows of numbers that have a class: a person's own, and what is predicted of them."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from app.deploy.adapted import OTHER, Adapted
from app.deploy.advice import Line, adapted_by, class_columns, confidence, held_out
from app.deploy.coverage import set_parts
from app.deploy.inputs import FeatureColumns
from app.deploy.pictures import Query, Support
from app.errors import InputError
from datamodules.files.feature_rows import read_feature_rows

if TYPE_CHECKING:
    from app.deploy.command import Predict
    from app.deploy.predictor import Predictor


class Rows(NamedTuple):
    """Rows to be classified.

    Attributes:
        query: the numbers, and the class of each row whose class is known and one of those that were learned.
        texts: the other columns of the file, by their names.
        truths: the column of the classes as it is; null where there is none.
    """

    query: Query
    texts: dict[str, list[str]]
    truths: list[str] | None


def read_labelled_rows(path: str, option: str, reading: FeatureColumns) -> Support:
    """The rows of a file that says the class of each.

    Raises:
        InputError: it lacks a column, or holds what is no number.
    """
    rows = read_feature_rows(path, option, reading.x)
    if reading.label not in rows.texts:
        raise InputError(
            f"{option} {path} has no column {reading.label}, which names the class of a row; there are "
            f"{', '.join([*rows.texts, *rows.columns][:8])}; rename the one that does"
        )
    labels = rows.texts[reading.label].tolist()
    if blank := sum(not label.strip() for label in labels):
        raise InputError(f"{option} {path} has {blank:,} rows without a {reading.label}; remove them")
    return Support(rows.values, labels, [f"row {number + 1}" for number in range(len(labels))])


def classify_rows(command: "Predict", predictor: "Predictor") -> int:
    """Adapts to the rows of a file, writes the table of predictions of others, and says what was found.

    Raises:
        InputError: the files lack a column, or hold what is no number.
    """
    reading = predictor.reading
    if not isinstance(reading, FeatureColumns):
        raise InputError(f"{command.ckpt_path} classifies vectors of no table; use app.load in Python")
    support = read_labelled_rows(command.support, "--support", reading)
    classes = predictor.check_classes(support.labels, "learned" if command.method == "learned" else "pixel_mean")
    if command.threshold and OTHER in classes:
        raise InputError(f"--support has a class {OTHER!r}, which --threshold answers with; rename it")
    adapted, raw, compared = adapted_by(command.method, predictor, support)
    return answer_rows(command, adapted, len(support.labels), [*compared, *held_out(adapted, raw)])


def answer_rows(command: "Predict", adapted: Adapted, num_examples: int, lines: list[Line]) -> int:
    """Writes the table of predictions, and says what was found.

    Args:
        command: says which rows, and what of them.
        adapted: the predictor.
        num_examples: that it has learned.
        lines: what else is said of it.
    """
    rows = _read_query(command.query, adapted)
    found = adapted.predict(rows.query.pixels, command.threshold)
    probabilities = found.probabilities.double().numpy()
    header, columns = class_columns(adapted.classes, probabilities, command.top)
    sets, set_columns, of_sets = set_parts(adapted, rows.query, command.coverage)
    table = [rows.query.names, *rows.texts.values(), found.labels, probabilities.max(1), *set_columns, *columns]
    names = ["row", *rows.texts, "label", "probability", *sets, *header]
    if rows.truths is not None:
        table, names = [*table, rows.truths], [*names, "true"]
    command.write(names, zip(*table, strict=True))
    right = [label == truth for label, truth in zip(found.labels, rows.query.truths, strict=True) if truth is not None]
    score = f"accuracy {100 * np.mean(right):.2f} % of the {len(right)} queries whose class is one of these" if right else None
    counted = f"{len(adapted.classes)} classes, {num_examples} support rows, {len(rows.query.names)} queries"
    lines = [*lines, *confidence(adapted, found.labels, probabilities), *of_sets]
    command.say(adapted, counted, score, rows.query.pixels, lines)
    return 0


def _read_query(path: str, adapted: Adapted) -> Rows:
    reading: FeatureColumns = adapted.reading
    rows = read_feature_rows(path, "--query", reading.x)
    names = [str(number + 1) for number in range(len(rows.values))]
    truths = rows.texts[reading.label].tolist() if reading.label in rows.texts else None
    known = [truth if truth in adapted.classes else None for truth in truths or [None] * len(names)]
    texts = {name: cells.tolist() for name, cells in rows.texts.items() if name != reading.label}
    return Rows(Query(rows.values, names, known, []), texts, truths)
