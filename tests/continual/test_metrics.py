"""The metrics of an R matrix, against numbers worked out by hand."""

import numpy as np
import pytest
from helpers.streams import Patterns
from scipy import stats

from app.continual.base.memory import ReservoirMemory
from app.continual.metrics import ACCURACY, ERROR, anytime, mean_and_interval, summarise

R = np.array([[0.9, 0.3, 0.2], [0.5, 0.8, 0.4], [0.6, 0.4, 1.0]])
BEFORE = np.array([0.1, 0.2, 0.3])


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_an_interval_of_few_runs_holds_the_truth_in_95_of_100_cases(runs):
    draws = np.random.default_rng(0).normal(0.7, 0.1, (4000, runs))
    covered = np.mean([abs(mean - 0.7) < half for mean, half in map(mean_and_interval, draws.tolist())])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors
    mean, half = mean_and_interval(draws[0].tolist())
    low, high = stats.ttest_1samp(draws[0], 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_an_interval_of_one_run_or_of_undefined_values():
    assert mean_and_interval([0.5]) == (0.5, None)
    assert mean_and_interval([0.5, None]) is None


def test_metrics():
    expected = {
        "ACC": 2.0 / 3,
        "LA": 0.9,
        "BWT": ((0.6 - 0.9) + (0.4 - 0.8)) / 2,
        "BTI": 2.0 / 3 - 0.9,
        "FWT": ((0.3 - 0.2) + (0.4 - 0.3)) / 2,
        "forgetting": ((0.9 - 0.6) + (0.8 - 0.4)) / 2,
        "average incremental accuracy": (0.9 + (0.5 + 0.8) / 2 + 2.0 / 3) / 3,
    }
    assert summarise(R, BEFORE) == pytest.approx(expected)


def test_forgetting_is_from_the_best_row_before_the_last():
    improved = R.copy()
    improved[2, 0] = 0.95  # better than ever: forgetting may be negative, and BWT is another number
    assert summarise(improved, BEFORE)["forgetting"] == pytest.approx(((0.9 - 0.95) + (0.8 - 0.4)) / 2)
    later = R.copy()
    later[1, 0] = 0.97
    found = summarise(later, BEFORE)
    assert found["forgetting"] == pytest.approx(((0.97 - 0.6) + 0.4) / 2) and found["BWT"] == pytest.approx(-0.35)


def test_rows_that_were_not_scored_leave_their_metrics_out():
    partial = R.copy()
    partial[1] = np.nan
    assert set(summarise(partial, BEFORE)) == {"ACC"}


def test_metrics_of_errors_have_the_signs_of_those_of_accuracies():
    """What is good is above 0 in transfer, and what is bad in forgetting, whatever R is made of."""
    expected = {
        "MSE": 2.0 / 3,
        "learning MSE": 0.9,
        "BWT of errors": ((0.9 - 0.6) + (0.8 - 0.4)) / 2,
        "BTI of errors": 0.9 - 2.0 / 3,
        "FWT of errors": ((0.2 - 0.3) + (0.3 - 0.4)) / 2,
        "forgetting of errors": ((0.6 - 0.5) + (0.4 - 0.8)) / 2,
        "average incremental MSE": (0.9 + (0.5 + 0.8) / 2 + 2.0 / 3) / 3,
    }
    assert summarise(R, BEFORE, measure=ERROR) == pytest.approx(expected)
    mirrored = summarise(1 - R, 1 - BEFORE)
    for (name, value), of_errors in zip(mirrored.items(), expected.values(), strict=True):
        level = name in ("ACC", "LA", "average incremental accuracy")
        assert of_errors == pytest.approx(1 - value if level else value)
    assert set(ERROR.formulas) == {*ERROR.names, "prequential mse"} and not set(ERROR.names) & set(ACCURACY.names)


def test_anytime_metrics_of_errors():
    nan = np.nan
    errors = np.array([[0.2, nan], [0.8, nan], [0.5, 0.1], [0.3, 0.6], [0.7, 0.9]])
    found = anytime(errors, np.array([0, 0, 1, 1, 1]), ERROR)
    assert found["max-MSE"] == pytest.approx(0.7) and found["WC-MSE"] == pytest.approx(0.9 / 2 + 0.7 / 2)
    assert found["average anytime MSE"] == pytest.approx(np.mean([0.2, 0.8, 0.3, 0.45, 0.8]))


def test_anytime_metrics():
    nan = np.nan
    accuracies = np.array([[0.2, nan], [0.8, nan], [0.5, 0.1], [0.3, 0.6], [0.7, 0.9]])
    found = anytime(accuracies, np.array([0, 0, 1, 1, 1]))
    least = 0.3
    assert found["AAA"] == pytest.approx(np.mean([0.2, 0.8, 0.3, 0.45, 0.8]))
    assert found["min-ACC"] == pytest.approx(least)
    assert found["WC-ACC"] == pytest.approx(0.9 / 2 + least / 2)


def test_a_reservoir_keeps_every_sample_with_the_same_probability():
    capacity, seen, runs = 10, 50, 600
    kept = np.zeros(seen)
    for seed in range(runs):
        stream = Patterns(seed=seed)
        memory = ReservoirMemory(capacity, stream)
        slots = {}
        for number in range(seen):
            slot = memory.slot(stream, number)
            if slot < capacity:
                slots[slot] = number
        kept[list(slots.values())] += 1
    expected = runs * capacity / seen
    # Each count is binomial: its variance is np(1-p), not np.
    statistic = ((kept - expected) ** 2).sum() / (expected * (1 - capacity / seen))
    assert kept.sum() == runs * capacity
    assert 0.001 < stats.chi2.cdf(statistic, seen - 1) < 0.999
