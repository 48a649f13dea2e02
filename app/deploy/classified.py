"""What the verb `predict` does with rows of numbers that have a class."""

from typing import TYPE_CHECKING

import numpy as np

from app.deploy.adapted import OTHER
from app.deploy.advice import adapted_by, class_columns, confidence, held_out
from app.deploy.inputs import FeatureColumns
from app.deploy.pictures import Support
from app.errors import InputError
from datamodules.files.feature_rows import read_feature_rows

if TYPE_CHECKING:
    from app.deploy.command import Predict
    from app.deploy.predictor import Predictor


def classify_rows(command: "Predict", predictor: "Predictor") -> int:
    """Writes the table of predictions, and says what was found.

    Raises:
        InputError: the files lack a column, or hold what is no number.
    """
    reading = predictor.reading
    if not isinstance(reading, FeatureColumns):
        raise InputError(f"{command.ckpt_path} classifies vectors of no table; use app.load in Python")
    support = read_feature_rows(command.support, "--support", reading.x)
    query = read_feature_rows(command.query, "--query", reading.x)
    if reading.label not in support.texts:
        raise InputError(
            f"--support {command.support} has no column {reading.label}, which names the class of a row; there are "
            f"{', '.join([*support.texts, *support.columns][:8])}; rename the one that does"
        )
    labels = support.texts[reading.label].tolist()
    classes = predictor.check_classes(labels, "learned" if command.method == "learned" else "pixel_mean")
    if command.threshold and OTHER in classes:
        raise InputError(f"--support has a class {OTHER!r}, which --threshold answers with; rename it")
    rows = Support(support.values, labels, [f"row {number + 1}" for number in range(len(labels))])
    adapted, raw, compared = adapted_by(command.method, predictor, rows)
    found = adapted.predict(query.values, command.threshold)
    probabilities = found.probabilities.double().numpy()
    header, columns = class_columns(classes, probabilities, command.top)
    kept = {name: cells.tolist() for name, cells in query.texts.items() if name != reading.label}
    truths = query.texts.get(reading.label)
    known = np.isin(truths, classes) if truths is not None else np.zeros(len(query.values), bool)
    table = [range(1, len(query.values) + 1), *kept.values(), found.labels, probabilities.max(1), *columns]
    names = ["row", *kept, "label", "probability", *header]
    if truths is not None:
        table, names = [*table, truths.tolist()], [*names, "true"]
    command.write(names, zip(*table, strict=True))
    score = None
    if known.any():
        share = (np.array(found.labels)[known] == truths[known]).mean()
        score = f"accuracy {100 * share:.2f} % of the {known.sum()} queries whose class is one of these"
    counted = f"{len(classes)} classes, {len(labels)} support rows, {len(query.values)} queries"
    lines = [*compared, *held_out(adapted, raw), *confidence(found.labels, probabilities)]
    command.say(adapted, counted, score, query.values, lines)
    return 0
