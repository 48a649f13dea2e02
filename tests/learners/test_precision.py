"""Methods in float64, float32 and bfloat16: one of each base, and every one where rounding is its own affair."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.small import METHODS, ONE_OF_EACH_BASE, flat, relative_error, small_run, task_of, trainer

from app.algorithms.optimisation_based.inner_loop_algorithm import InnerLoopAlgorithm
from app.backbones import Conv4
from callbacks.inner_precision import InnerPrecision

each_base = pytest.mark.parametrize("method", ONE_OF_EACH_BASE)
WITH_INNER_LOOP = [name for name, (cls, _) in METHODS.items() if issubclass(cls, InnerLoopAlgorithm)]


def params_of(algorithm):
    return {name: weight.detach().clone() for name, weight in algorithm.named_parameters()}


def first_step(method, task, precision, callbacks=()):
    """What the first outer step, by SGD with lr 1, adds to the weights."""
    wanted = {"inner_lr": 0.02, "step_size_range": (0.0, 0.02), "inner_steps": 1, "optimizer": partial(torch.optim.SGD, lr=1.0)}
    if task == "classification":
        wanted["backbone"] = partial(Conv4, width=16)
    if method == "ANML":  # by its other norms, of maps of four positions, a thousandth of the weights turns the gradient around
        wanted["norm"] = "layer"
    algorithm, data = small_run(method, task, **wanted)
    before = params_of(algorithm)
    trainer(1, callbacks, precision=precision).fit(algorithm, data)
    after = params_of(algorithm)
    return {name: after[name].double() - before[name].double() for name in before}, {w.dtype for w in after.values()}


@pytest.mark.slow
@each_base
def test_float64_equals_float32(method):
    task = task_of(method)
    expected, _ = first_step(method, task, "32-true")
    actual, dtypes = first_step(method, task, "64-true")
    assert dtypes == {torch.float64}
    assert 0 < relative_error(actual, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "task", "inner", "least"),
    [
        *((method, task_of(method), "mixed", 0.9) for method in METHODS),
        ("MAML", "classification", "full", 0.95),
        ("MAML", "regression", "full", 0.95),
    ],
)
def test_bfloat16_steps_in_the_direction_of_float32(method, task, inner, least):
    expected, _ = first_step(method, task, "32-true")
    actual, dtypes = first_step(method, task, "bf16-mixed", (InnerPrecision(inner),))
    assert dtypes == {torch.float32}
    assert F.cosine_similarity(flat(actual), flat(expected), dim=0) > least


@pytest.mark.slow
@each_base
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_trains_and_tests_in_other_precisions(method, precision):
    algorithm, data = small_run(method, task_of(method))
    run = trainer(3, precision=precision)
    run.fit(algorithm, data)
    assert run.global_step == data.cursor == 3
    run.test(algorithm, datamodule=data, verbose=False)
    if algorithm.score_name == "accuracy":
        assert all(0 <= score <= 1 for score in algorithm.evaluation["scores"]["accuracy"]["mean"])
    assert math.isfinite(run.callback_metrics["test/loss"])


@pytest.mark.parametrize("method", WITH_INNER_LOOP)
def test_full_precision_inside_autocast(method):
    """Without autocast in the inner loop the adaptation is the one of float32."""
    algorithm, data = small_run(method)
    support_x, support_y, *_ = data.episode("train", 0)
    adapted = []
    for enabled, inner in ((False, True), (True, False), (True, True)):
        algorithm.autocast_inner_loop = inner
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.inference_mode():
            adapted.append(algorithm.adapt(dict(algorithm.named_parameters()), support_x, support_y).weights)
    assert all(torch.equal(adapted[0][name], adapted[1][name]) for name in adapted[0])
    assert any(not torch.equal(adapted[0][name], adapted[2][name]) for name in adapted[0])
