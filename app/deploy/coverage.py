"""Answers that are sets of classes, with a guarantee."""

from math import ceil
from typing import Any

import torch

from app.deploy.adapted import ROWS, Adapted
from app.deploy.pictures import Query
from app.errors import InputError
from app.scores.conformal import least_probability, nonconformity

UNKNOWN = "unknown"


def prediction_sets(adapted: Adapted, query_x: Any, coverage: float) -> list[list[Any]]:
    """The classes that cannot be excluded for each query; none where no class is like it.

    Calibrated by the examples that are left out in turn, where they are enough; else by the queries of the validation tasks of
    training. The truth is in the set as often as `coverage` says, where the queries are of the classes that were learned.

    Args:
        adapted: the predictor.
        query_x: as of `Adapted.predict`.
        coverage: between 0 and 1.

    Raises:
        InputError: there is nothing to calibrate by.
    """
    least, _ = calibrated(adapted, coverage)
    x = adapted.reading.inputs(query_x, "query_x").to(adapted.algorithm.device)
    with torch.no_grad():
        found = torch.cat([adapted.raw_outputs(part)[0].cpu() for part in ([x] if adapted.transductive else x.split(ROWS))])
    return [[name for name, held in zip(adapted.classes, row, strict=True) if held] for row in (found >= least).tolist()]


def calibrated(adapted: Adapted, coverage: float) -> tuple[float, str]:
    """The least probability of a class in a set, and in words by what it was found."""
    if isinstance(coverage, str) or not 0 < coverage < 1:
        raise InputError(f"--coverage is {coverage}; give a share between 0 and 1, such as 0.9")
    needed = ceil(round(coverage / (1 - coverage), 9))  # fewer exclude nothing
    if (found := adapted.held_out) is not None and len(found.rows) >= needed and found.probabilities.isfinite().all():
        scores = nonconformity(found.probabilities, found.labels)
        return least_probability(scores, coverage), f"{len(scores)} examples that were left out in turn"
    scores = adapted.algorithm.nonconformity if adapted.method == "learned" else None
    if scores is None or len(scores) < needed or adapted.algorithm.validated_on is None:
        raise InputError(
            f"--coverage {coverage} needs at least {needed} examples to leave out, 2 or more of a class, or a checkpoint "
            "that was validated by this version; add examples, or leave it out"
        )
    if harder := harder_than_validation(adapted):
        raise InputError(
            f"--coverage {coverage}: {harder}, so they do not say what holds here; train with the --data.ways and --data.shots "
            f"of use, or give examples to leave out, {needed} or more and 2 of a class (a learner that keeps sums has none, one "
            "with --window has)"
        )
    return least_probability(scores, coverage), f"{len(scores)} queries of the validation tasks of training"


def harder_than_validation(adapted: Adapted) -> str | None:
    """In how far the task is harder than those of validation, in words; null where it is not, or where none were noted."""
    if adapted.algorithm.validated_on is None:
        return None
    (ways, shots), num_classes = adapted.algorithm.validated_on, len(adapted.classes)
    if num_classes > ways:
        return f"there are {num_classes} classes, and the validation tasks of training had {ways}"
    if adapted.fewest < shots:
        examples = "1 example" if adapted.fewest == 1 else f"{adapted.fewest} examples"
        return f"a class has {examples}, and those of the validation tasks of training had {shots}"
    return None


def set_parts(adapted: Adapted, query: Query, coverage: float | None) -> tuple[list[str], list[list[str]], list[tuple[str, str]]]:
    """Header and cells of the column of the sets, and what a person is told of them; nothing where none were asked for."""
    if coverage is None:
        return [], [], []
    sets = prediction_sets(adapted, query.pixels, coverage)
    by, sizes = calibrated(adapted, coverage)[1], [len(one) for one in sets]
    text = f"at {100 * coverage:g} %, by {by}: {sum(sizes) / len(sizes):.2f} classes on average, {sizes.count(0)} are {UNKNOWN!r}"
    told = [truth in one for one, truth in zip(sets, query.truths, strict=True) if truth is not None]
    text += f"; {100 * sum(told) / len(told):.1f} % of {len(told)} hold the true class" if told else ""
    return ["set"], [[" | ".join(map(str, one)) or UNKNOWN for one in sets]], [("sets", text)]
