"""What a matrix of accuracies or errors comes to: libraries differ by ten points under one name; so all have their formulas."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit


class Metric(NamedTuple):
    """A number that is computed of the R matrix.

    Attributes:
        name: of the column.
        formula: T experiences, R[i,j] the accuracy or error on experience j after training on 0..i, b[j] before any training.
        compute: of R, shape (T, T), and b, shape (T,), where more is better.
        is_level: whether it is an accuracy or error itself; else it is a difference of two, above 0 where that is good, and
            of forgetting where it is bad.
    """

    name: str
    formula: str
    compute: Callable[[np.ndarray, np.ndarray], float]
    is_level: bool


def _backward_transfer(R: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(R[-1, :-1] - np.diag(R)[:-1]))


def _forward_transfer(R: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(np.diag(R, 1) - b[1:]))


def _forgetting(R: np.ndarray, b: np.ndarray) -> float:
    last = len(R) - 1
    return float(np.mean([R[j:last, j].max() - R[-1, j] for j in range(last)]))


COMPUTED = (
    (lambda R, b: float(R[-1].mean()), True),
    (lambda R, b: float(np.diag(R).mean()), True),
    (_backward_transfer, False),
    (lambda R, b: float(np.mean(R[-1] - np.diag(R))), False),
    (_forward_transfer, False),
    (_forgetting, False),
    (lambda R, b: float(np.mean([R[i, : i + 1].mean() for i in range(len(R))])), True),
)


class Measure(NamedTuple):
    """What R is made of, and the numbers that it comes to.

    Attributes:
        score: of a sample, as it is logged.
        sign: 1 where more is better, -1 where less is.
        unit: that numbers are shown in: "%", or none.
        formulas_of_R: by the names of the metrics, in the order of `COMPUTED`.
        anytime: formulas of the numbers of evaluations in between, by their names.
        prequential: name of the score before targets are used.
        prequential_formula: of that.
    """

    score: str
    sign: int
    unit: str
    formulas_of_R: dict[str, str]
    anytime: dict[str, str]
    prequential: str
    prequential_formula: str

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Of R."""
        return tuple(Metric(*text, *how) for text, how in zip(self.formulas_of_R.items(), COMPUTED, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that is computed of a view of the stream; the first one ranks methods."""
        return (*self.formulas_of_R, *self.anytime)

    @property
    def formulas(self) -> dict[str, str]:
        """Of all numbers."""
        return {**self.formulas_of_R, **self.anytime, self.prequential: self.prequential_formula}

    def number(self, value: float, places: int = 2) -> str:
        """A score as people read it, without the unit."""
        return f"{100 * value:.{places}f}" if self.unit else f"{value:.{places + 2}g}"

    def words(self, value: float, places: int = 2) -> str:
        """The same with the unit."""
        return f"{self.number(value, places)} {self.unit}".rstrip()


ACCURACY = Measure(
    "accuracy",
    1,
    "%",
    {
        "ACC": "mean_j R[T,j] (Lopez-Paz and Ranzato 2017; retained accuracy)",
        "LA": "mean_j R[j,j] (Riemer et al. 2019)",
        "BWT": "mean_{j<T} (R[T,j] - R[j,j]), over T-1 (Lopez-Paz and Ranzato 2017)",
        "BTI": "ACC - LA, over T (Riemer et al. 2019)",
        "FWT": "mean_{j>1} (R[j-1,j] - b[j]), over T-1 (Lopez-Paz and Ranzato 2017)",
        "forgetting": "mean_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]), over T-1 (Chaudhry et al. 2018)",
        "average incremental accuracy": "mean_i mean_{j<=i} R[i,j] (Rebuffi et al. 2017, by experiences)",
    },
    {
        "AAA": "mean over all evaluation instants of the mean accuracy on the experiences seen (Caccia et al. 2022)",
        "min-ACC": "mean_{j<T} of the least accuracy on j at any instant after its end (De Lange et al. 2023)",
        "WC-ACC": "R[T,T] / T + (1 - 1/T) min-ACC (De Lange et al. 2023)",
    },
    "prequential accuracy",
    "mean over all steps of the accuracy on a batch before its labels are used (Caccia et al. 2020)",
)
ERROR = Measure(
    "mse",
    -1,
    "",
    {
        "MSE": "mean_j R[T,j], R[i,j] the mean squared error on experience j after training on 0..i",
        "learning MSE": "mean_j R[j,j]",
        "BWT of errors": "mean_{j<T} (R[j,j] - R[T,j]), over T-1; below 0 where later experiences raised the error",
        "BTI of errors": "learning MSE - MSE, over T",
        "FWT of errors": "mean_{j>1} (b[j] - R[j-1,j]), over T-1; above 0 where earlier experiences lowered the error",
        "forgetting of errors": "mean_{j<T} (R[T,j] - min_{j<=l<T} R[l,j]), over T-1; above 0 where the error rose",
        "average incremental MSE": "mean_i mean_{j<=i} R[i,j]",
    },
    {
        "average anytime MSE": "mean over all evaluation instants of the mean squared error on the experiences seen",
        "max-MSE": "mean_{j<T} of the largest error on j at any instant after its end",
        "WC-MSE": "R[T,T] / T + (1 - 1/T) max-MSE",
    },
    "prequential mse",
    "mean over all steps of the squared error on a batch before its targets are used",
)
MEASURES = {measure.score: measure for measure in (ACCURACY, ERROR)}
OF_TASKS = {"classification": ACCURACY, "regression": ERROR}
CLASSES_ARE_NEW = "the classes of an experience are no answer before it comes"


def measure_of(results: dict[str, Any]) -> Measure:
    """What the numbers of a results.json, or of a row of a table of runs, are."""
    return MEASURES[results.get("measure", ACCURACY.score)]


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


def summarise(R: np.ndarray, before: np.ndarray, classes_are_new: bool = False, measure: Measure = ACCURACY) -> dict[str, float]:
    """All metrics whose rows were evaluated; an experience that is missing leaves its metrics out.

    Args:
        R: accuracy in 0..1, or error, of shape (T, T); NaN where it was not evaluated.
        before: the same before any training, of shape (T,).
        classes_are_new: whether each experience has answers that no other one has and that compete with those of the others;
            then there is no forward transfer.
        measure: what R is made of.
    """
    found, sign = {}, measure.sign
    for place, metric in enumerate(measure.metrics):
        if metric.compute is _forward_transfer and classes_are_new:
            continue
        if len(R) > 1 or place < 2:
            value = metric.compute(sign * R, sign * before)
            if not np.isnan(value):
                found[metric.name] = sign * value if metric.is_level else value
    return found


def anytime(scores: np.ndarray, experiences: np.ndarray, measure: Measure = ACCURACY) -> dict[str, float]:
    """AAA, min-ACC and WC-ACC of accuracies at instants of the whole stream, or the same of errors.

    Args:
        scores: of shape (instants, T), NaN for experiences not yet seen.
        experiences: number of the experience at each instant, of shape (instants,); the last instant is the end of the stream.
        measure: what the scores are.
    """
    if not len(scores):
        return {}
    average, at_worst, whole = measure.anytime
    found = {average: float(np.nanmean(scores, 1).mean())}
    total, worst = scores.shape[1], np.min if measure.sign > 0 else np.max
    lowest = [worst(scores[experiences > j, j]) for j in range(total - 1) if (experiences > j).any()]
    if total > 1 and len(lowest) == total - 1:
        least = float(np.mean(lowest))
        found |= {at_worst: least, whole: float(scores[-1, -1] / total + (1 - 1 / total) * least)}
    return found
