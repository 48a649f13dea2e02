"""What an accuracy matrix comes to: libraries differ by ten points under one name, so every number has its formula."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


class Metric(NamedTuple):
    """A number that is computed of the R matrix.

    Attributes:
        name: of the column.
        formula: T experiences, R[i,j] the accuracy on experience j after training on 0..i, b[j] before any training.
        compute: of R, shape (T, T), and b, shape (T,).
    """

    name: str
    formula: str
    compute: Callable[[np.ndarray, np.ndarray], float]


def _backward_transfer(R: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(R[-1, :-1] - np.diag(R)[:-1]))


def _forgetting(R: np.ndarray, b: np.ndarray) -> float:
    last = len(R) - 1
    return float(np.mean([R[j:last, j].max() - R[-1, j] for j in range(last)]))


METRICS = (
    Metric("ACC", "mean_j R[T,j] (Lopez-Paz and Ranzato 2017; retained accuracy)", lambda R, b: float(R[-1].mean())),
    Metric("LA", "mean_j R[j,j] (Riemer et al. 2019)", lambda R, b: float(np.diag(R).mean())),
    Metric("BWT", "mean_{j<T} (R[T,j] - R[j,j]), over T-1 (Lopez-Paz and Ranzato 2017)", _backward_transfer),
    Metric("BTI", "ACC - LA, over T (Riemer et al. 2019)", lambda R, b: float(np.mean(R[-1] - np.diag(R)))),
    Metric(
        "FWT",
        "mean_{j>1} (R[j-1,j] - b[j]), over T-1 (Lopez-Paz and Ranzato 2017)",
        lambda R, b: float(np.mean(np.diag(R, 1) - b[1:])),
    ),
    Metric("forgetting", "mean_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]), over T-1 (Chaudhry et al. 2018)", _forgetting),
    Metric(
        "average incremental accuracy",
        "mean_i mean_{j<=i} R[i,j] (Rebuffi et al. 2017, by experiences)",
        lambda R, b: float(np.mean([R[i, : i + 1].mean() for i in range(len(R))])),
    ),
)

ANYTIME = {
    "AAA": "mean over all evaluation instants of the mean accuracy on the experiences seen (Caccia et al. 2022)",
    "min-ACC": "mean_{j<T} of the least accuracy on j at any instant after its end (De Lange et al. 2023)",
    "WC-ACC": "R[T,T] / T + (1 - 1/T) min-ACC (De Lange et al. 2023)",
}
PREQUENTIAL = "mean over all steps of the accuracy on a batch before its labels are used (Caccia et al. 2020)"


NAMES = (*(metric.name for metric in METRICS), *ANYTIME)
CLASSES_ARE_NEW = "the classes of an experience are no answer before it comes"


def mean_and_interval(values: list[float | None]) -> tuple[float, float | None] | None:
    """Mean over runs, and the half width of its 95 % interval by Student's t: of few runs 1.96 s / sqrt(n) is too narrow.

    Args:
        values: one of each run, that differ in their seeds; null where it is undefined.

    Returns:
        Null where one of the values is undefined; a half width of null for one run.
    """
    if None in values:
        return None
    num_runs, mean = len(values), float(np.mean(values))
    if num_runs < 2:
        return mean, None
    return mean, float(stdtrit(num_runs - 1, 0.975) * np.std(values, ddof=1) / num_runs**0.5)


def summarise(R: np.ndarray, before: np.ndarray, classes_are_new: bool = False) -> dict[str, float]:
    """All metrics whose rows were evaluated; an experience that is missing leaves its metrics out.

    Args:
        R: accuracy in 0..1, of shape (T, T); NaN where it was not evaluated.
        before: accuracy before any training, of shape (T,).
        classes_are_new: whether each experience has answers that no other one has and that compete with those of the others;
            then there is no forward transfer.
    """
    found = {}
    for metric in METRICS:
        if metric.name == "FWT" and classes_are_new:
            continue
        if len(R) > 1 or metric.name in ("ACC", "LA"):
            value = metric.compute(R, before)
            if not np.isnan(value):
                found[metric.name] = value
    return found


def anytime(accuracies: np.ndarray, experiences: np.ndarray) -> dict[str, float]:
    """AAA, min-ACC and WC-ACC of accuracies at instants of the whole stream.

    Args:
        accuracies: of shape (instants, T), NaN for experiences not yet seen.
        experiences: number of the experience at each instant, of shape (instants,); the last instant is the end of the stream.
    """
    if not len(accuracies):
        return {}
    found = {"AAA": float(np.nanmean(accuracies, 1).mean())}
    total = accuracies.shape[1]
    lowest = [accuracies[experiences > j, j].min() for j in range(total - 1) if (experiences > j).any()]
    if total > 1 and len(lowest) == total - 1:
        least = float(np.mean(lowest))
        found |= {"min-ACC": least, "WC-ACC": float(accuracies[-1, -1] / total + (1 - 1 / total) * least)}
    return found
