"""The examples that a person gives a learner, of files."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from app.deploy.adapted import Adapted, Regression
from app.deploy.classified import read_labelled_rows
from app.deploy.inputs import FeatureColumns, Pictures
from app.deploy.living_learner import LivingLearner
from app.deploy.pictures import read_pictures, read_support
from app.deploy.predictor import Predictor
from app.deploy.table import Table, read_table
from app.errors import InputError
from datamodules.files.feature_rows import read_feature_rows
from datamodules.files.picture_files import PictureFiles


class Labelled(NamedTuple):
    """Examples of classes, or of one task of a regression.

    Attributes:
        x: pixels or rows.
        y: labels or targets.
        task: name of the task; of classes null.
    """

    x: Any
    y: Any
    task: Any = None


def labelled(path: str, option: str, predictor: Predictor, task: str | None) -> list[Labelled]:
    """The examples in a folder or archive of classes, or in a table, part by part.

    Args:
        path: of them.
        option: that gave it, for the messages.
        predictor: says what they must be like.
        task: of the rows of a table that does not say it; null where none was given.
    """
    reading = predictor.reading
    if isinstance(reading, Pictures | FeatureColumns):
        if task is not None:
            raise InputError(f"--task is for the rows of a regression, and the learner classifies {reading.things}; leave it out")
        is_of_rows = isinstance(reading, FeatureColumns)
        support = read_labelled_rows(path, option, reading) if is_of_rows else read_support(path, reading, option)
        return [Labelled(support.pixels, support.labels)]
    _check_regression(predictor)
    table = read_table(path, option, reading, with_targets=True, one_task=False)
    names = tasks_of(table, reading.task, task, option)
    return [
        Labelled(table.x[rows], table.y[rows], name)
        for name in dict.fromkeys(names)
        for rows in [[row for row, own in enumerate(names) if own == name]]
    ]


def _check_regression(predictor: Predictor) -> None:
    if predictor.algorithm.task_type == "classification":
        raise InputError(f"{predictor.name} classifies rows of numbers, which are read of no file; use app.load_learner")


def tasks_of(table: Table, column: str | None, task: str | None, option: str) -> list[str]:
    """The task of each row of a table, by its column where it has one."""
    if column in table.names:
        if task is not None:
            raise InputError(f"--task {task} is given, and {option} has the column {column} that names the tasks; leave one out")
        return [row[table.names.index(column)].strip() for row in table.cells]
    return [task or "task"] * len(table.x)


def answers_in_tasks(learner: LivingLearner, query: Table, task: str | None) -> tuple[Adapted, Regression]:
    """What a learner says of the rows of a table, each in its task; and the predictor of the first row's."""
    column = learner.predictor.reading.task
    names = tasks_of(query, column, task, "--query") if column in query.names or task else [None] * len(query.x)
    found: list[Any] = [None] * len(names)
    for name in dict.fromkeys(names):
        rows = [row for row, own in enumerate(names) if own == name]
        answer = learner.predict(query.x[rows], task=name)
        for at, row in enumerate(rows):
            found[row] = [None if part is None else part[at] for part in answer]
    means, stds = ([row[part] for row in found] for part in (0, 1))
    return learner.adapted(names[0]), Regression(torch.stack(means), None if stds[0] is None else torch.stack(stds))


def given_examples(path: str, predictor: Predictor) -> tuple[Any, ...]:
    """The examples that are to be forgotten, as `forget_examples` takes them: of a folder, an archive, a list or a table."""
    option, place, reading = "--forget_files", Path(path).expanduser(), predictor.reading
    if isinstance(reading, FeatureColumns):
        return (read_feature_rows(path, option, reading.x).values,)
    if not isinstance(reading, Pictures):
        _check_regression(predictor)
        table = read_table(path, option, reading, with_targets=True, one_task=False)
        return table.x, table.y
    if place.is_dir() or place.suffix.lower() == ".zip":
        remedy = f"replace or remove it, or change {option}"
        files = PictureFiles(place, remedy)
        if not files.pictures:
            raise InputError(f"{option} {path} holds no pictures; give a folder, a .zip, or a list of pictures")
        return read_pictures(files.pictures, reading, remedy), None, list(map(str, files.pictures))
    try:
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{option} {path} cannot be read ({reason}); give a folder, a .zip, or a list of pictures") from error
    if not lines:
        raise InputError(f"{option} {path} names no picture; give the path of one in each line")
    paths = [str(place.parent / line) for line in lines]
    return paths, None, paths
