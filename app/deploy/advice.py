"""What a person would ask next: how sure the answers are, and what of the examples to look at again."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from app.deploy.adapted import OTHER, Adapted
from app.deploy.coverage import harder_than_validation
from app.deploy.held_out import FOLDS
from app.deploy.inputs import Columns, Pictures, is_on_light
from app.deploy.methods import allowed
from app.deploy.pictures import Query, Support
from app.deploy.predictor import Predictor
from app.errors import InputError

Line = tuple[str, str]
UNSURE = 0.5  # the most probable class is less probable than all others together
OUTLIER = 0.1  # probability of an example's own class, by what the other examples say
SHOWN, CLASSES_SHOWN = 5, 20
LEAST_ROWS = 5  # of a table, of which some are left out


def adapted_by(method: str, predictor: Predictor, support: Support) -> tuple[Adapted, Adapted, list[Line]]:
    """The predictor by a method, the one by the nearest mean of raw pixels, and what a comparison found.

    Args:
        method: one of `methods.METHODS`, or compare for that which is right of most support pictures that are left out.
        predictor: of the checkpoint.
        support: the examples.
    """
    pixels, labels, algorithm = support.pixels, support.labels, predictor.algorithm
    if method != "compare":
        return predictor.adapt(pixels, labels, method), predictor.adapt(pixels, labels, "pixel_mean"), []
    known = allowed(algorithm)
    if not algorithm.any_ways and len(set(labels)) != algorithm.output_size:
        known = known[1:]
    found = {one: predictor.adapt(pixels, labels, one) for one in known}
    if found["pixel_mean"].held_out is None:
        raise InputError("--method compare leaves out support pictures in turn, and each class has one; add some")
    scores = {one: adapted.held_out.accuracy for one, adapted in found.items()}
    best = max(scores, key=scores.get)
    text = ", ".join(f"{one} {100 * score:.1f} %" for one, score in scores.items())
    return found[best], found["pixel_mean"], [("compared", f"{text} of the support pictures; taken is {best}")]


def polarity(adapted: Adapted, support: Support, query: Query) -> Iterator[Line]:
    """Whether black became white, and whether all pictures are of one kind."""
    reading = adapted.reading
    if not isinstance(reading, Pictures) or not reading.inverts_pictures:
        return
    wanted = "made white on black, as those of training" if reading.inverts else "left white on black, as those of training"
    yield "pictures", f"taken for {'dark on light' if reading.inverts else 'light on dark'} and {wanted}"
    for option, part in (("--support", support), ("--query", query)):
        yield from turned(reading, option, part.pixels)


def turned(reading: Pictures | Columns, option: str, pixels: np.ndarray) -> Iterator[Line]:
    """A warning where ink and ground of some pictures of lines are the other way round than those of what was learned."""
    if not isinstance(reading, Pictures) or not reading.inverts_pictures:
        return
    others = int((is_on_light(reading.levels(pixels, option)) != reading.inverts).sum())
    if others:
        yield "warning", f"{others} of the {len(pixels)} pictures of {option} look the other way round; see --polarity"


def held_out(adapted: Adapted, raw: Adapted) -> Iterator[Line]:
    """How many examples are right that are left out in turn, beside the nearest mean of raw pixels."""
    if adapted.held_out is None:
        yield "check", "no class has a second example, so none can be left out to check; 5 of each say more"
        return
    how = "each" if adapted.held_out.is_one_by_one else "a fifth"
    count, own, pixels = len(adapted.held_out.rows), adapted.held_out.accuracy, raw.held_out.accuracy
    text = f"of {count} support {adapted.reading.things}, {how} left out in turn, {100 * own:.1f} % are right"
    beside = f"; nearest mean of {adapted.reading.raw} {100 * pixels:.1f} %"
    yield "check", text + beside * (adapted.method != "pixel_mean")


def held_out_rows(predictor: Predictor, x: np.ndarray, y: np.ndarray) -> Iterator[Line]:
    """How far off the rows of a table are that are left out in turn, beside the mean of the others."""
    if len(x) < LEAST_ROWS:
        yield "check", f"fewer than {LEAST_ROWS} support rows, so none can be left out to check"
        return
    fold, errors = np.arange(len(x)) % FOLDS, []
    for number in range(FOLDS):
        out = fold == number
        found = predictor.adapt(x[~out], y[~out]).predict(x[out]).mean.numpy()
        errors.append(np.stack([found - y[out], y[~out].mean(0) - y[out]]))
    own, mean = np.sqrt((np.concatenate(errors, 1) ** 2).mean(1))
    names = predictor.reading.y
    text = "; ".join(f"{name} {a:.4g}, by the mean of the others {b:.4g}" for name, a, b in zip(names, own, mean, strict=True))
    yield "check", f"root mean squared error of the {len(x)} support rows, a fifth left out in turn: {text}"
    for name, a, b in zip(names, own, mean, strict=True):
        if not a < b:
            yield "warning", f"of {name} the mean of the support rows is no worse; train on tables more like this one"


def no_better(adapted: Adapted, own: float, pixels: float, where: str) -> Iterator[Line]:
    """A warning where what was learned is of no use."""
    if own <= pixels:
        yield (
            "warning",
            (
                f"on {where} what was learned is no better than the nearest mean of {adapted.reading.raw} ({100 * own:.1f} % "
                f"against {100 * pixels:.1f} %); try --method compare, or train on pictures more like these"
            ),
        )


def confidence(adapted: Adapted, labels: list[str], probabilities: np.ndarray) -> Iterator[Line]:
    """How sure the answers are, and whether anything has checked that."""
    best = probabilities.max(1)
    unsure = int((best < UNSURE).sum())
    if_alike = "" if adapted.held_out else " if these are like those of training"
    text = f"{100 * best.mean():.0f} % on average, so about {best.sum():.0f} of {len(best)} should be right{if_alike}"
    text += f"; {unsure} below {100 * UNSURE:.0f} %"
    text += f"; {labels.count(OTHER)} are {OTHER!r}" if OTHER in labels else ""
    if not adapted.held_out:
        text += f"; not checked: {harder_than_validation(adapted) or 'no example could be left out'}"
    yield "confidence", text


def confusions(adapted: Adapted, labels: list[str], truths: list[str | None]) -> Iterator[Line]:
    """Which classes are taken for which, of examples that were left out and of queries whose class is known."""
    pairs = [(truth, label) for truth, label in zip(truths, labels, strict=True) if truth is not None and label != OTHER]
    if found := adapted.held_out:
        names = np.array(adapted.classes, dtype=object)
        pairs += zip(names[found.labels.numpy()], names[found.probabilities.argmax(1).numpy()], strict=True)
    mistaken = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(SHOWN)
    if mistaken:
        yield "mistaken", ", ".join(f"{true} for {given} ({count}x)" for (true, given), count in mistaken)


def outliers(adapted: Adapted, support: Support) -> Iterator[Line]:
    """Examples that the others of their class do not speak for."""
    found = adapted.held_out
    if found is None:
        return
    own = found.probabilities[range(len(found.rows)), found.labels]
    strange = [int(at) for at in own.argsort() if own[at] < OUTLIER]
    if strange:
        named = [
            f"{support.names[int(found.rows[at])]} (rather {adapted.classes[int(found.probabilities[at].argmax())]})"
            for at in strange[:SHOWN]
        ]
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        yield "look again", f"support pictures unlike their class: {', '.join(named)}{more}"


def by_class(adapted: Adapted, support: Support, labels: list[str], probabilities: np.ndarray, truths: list[str | None]) -> str:
    """A table with a line for each class, the least certain ones first where there are many."""
    found, best, given = adapted.held_out, probabilities.max(1), np.array(labels, dtype=object)
    known, rows = any(truth is not None for truth in truths), []
    for number, name in enumerate(adapted.classes):
        checked = [] if found is None else found.probabilities.argmax(1)[found.labels == number].tolist()
        right = f"{100 * checked.count(number) / len(checked):.0f} %" if checked else "-"
        members = given == name
        sure = best[members].mean() if members.any() else np.nan
        of_class = [label == name for label, truth in zip(labels, truths, strict=True) if truth == name]
        cells = [str(name), str(support.labels.count(name)), right, str(int(members.sum()))]
        cells += ["-" if np.isnan(sure) else f"{100 * sure:.0f} %"]
        cells += [f"{sum(of_class)} of {len(of_class)}" if of_class else "-"] * known
        rows.append((sure, cells))
    hidden = len(rows) - CLASSES_SHOWN
    if hidden > 0:
        rows = sorted(rows, key=lambda row: (not np.isnan(row[0]), row[0]))[:CLASSES_SHOWN]
    header = ["by class", "examples", "checked", "answers", "confidence", *["right"] * known]
    lines = [header, *(cells for _, cells in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    first = f"{{:<{widths[0]}}}"
    text = [
        "  ".join([first.format(line[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join([*text, *([f"and {hidden} classes that are more certain"] if hidden > 0 else [])])


def class_columns(classes: list[str], probabilities: np.ndarray, top: int | None) -> tuple[list[str], Iterable[Any]]:
    """Names and columns of what a table says of the classes: all of them, or the most probable ones after the first.

    Args:
        classes: names.
        probabilities: of shape (queries, classes).
        top: so many, the first among them; null for all.
    """
    if top is None:
        return [f"p_{name}" for name in classes], probabilities.T
    order = (-probabilities).argsort(1, kind="stable")[:, :top]
    header, columns = [], []
    for place in range(1, order.shape[1]):
        header += [f"label_{place + 1}", f"probability_{place + 1}"]
        columns += [[classes[number] for number in order[:, place]], np.take_along_axis(probabilities, order, 1)[:, place]]
    return header, columns
