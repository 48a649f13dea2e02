"""What every method must do, found by itself in app.algorithms."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small import ALGORITHMS, NETWORKS, Blots, algorithm_for, flat, options, random_tasks, relative_error, take, trainer
from torch.testing import assert_close

from app.algorithms.maml import MAML
from app.backbones import Conv4
from app.episode import Episode
from app.errors import InputError
from app.scores import mean_and_ci95
from callbacks.inner_precision import InnerPrecision
from datamodules.sinusoid import Sinusoid

METHODS = {cls.__name__: (cls, {}) for cls in ALGORITHMS} | {
    "FOMAML": (MAML, {"first_order": True}),
    "ANIL": (MAML, {"adapted": "head"}),
    "BOIL": (MAML, {"adapted": "body"}),
}
LEARNING = {
    "classification": {
        "max_steps": 60,
        "data": partial(Blots, ways=3, queries=4, meta_batch_size=8, test_episodes=100),
        "options": {
            "backbone": partial(Conv4, width=8),
            "inner_lr": 0.3,
            "inner_steps": 2,
            "step_size_range": (0.3, 0.3),
            "optimizer": partial(torch.optim.Adam, lr=0.01),
        },
    },
    "regression": {
        "max_steps": 150,
        "data": partial(Sinusoid, queries=20, train_queries=10, meta_batch_size=8, test_episodes=200),
        "options": {
            "inner_lr": 0.02,
            "inner_steps": 3,
            "step_size_range": (0.02, 0.02),
            "optimizer": partial(torch.optim.Adam, lr=0.005),
        },
    },
}

each_method = pytest.mark.parametrize("method", METHODS)
each_task = pytest.mark.parametrize("task", LEARNING)


def method_for(method, data, **wanted):
    """The method for the data; one that chooses its own outer optimiser keeps it."""
    cls, fixed = METHODS[method]
    if "optimizer" in cls.__init__.__annotations__:
        wanted.pop("optimizer", None)
    try:
        return algorithm_for(cls, data, **wanted | fixed)
    except InputError as error:
        if "task_type" in str(error):
            pytest.skip(f"{method} is not for {data.task_type}")
        raise


def small(method, task="classification", **wanted):
    """The method at its smallest, and data for it."""
    if task == "classification":
        data = Blots(ways=3, shots=2, queries=2, meta_batch_size=4, val_episodes=7, test_episodes=7)
        common = {"backbone": NETWORKS["Conv4_stride"], "inner_lr": 0.3, "inner_steps": 2}
    else:
        data = Sinusoid(shots=5, queries=5, meta_batch_size=4, val_episodes=7, test_episodes=7)
        common = {"backbone": NETWORKS["MLP"], "inner_lr": 0.02, "inner_steps": 2}
    data.setup()
    return method_for(method, data, **common | wanted), data


def params_of(algorithm):
    return {name: weight.detach().clone() for name, weight in algorithm.named_parameters()}


def scores_of(algorithm, data):
    run = trainer()
    run.test(algorithm, datamodule=data, verbose=False)
    return algorithm.evaluation["mean"]


@each_method
@each_task
def test_learns(method, task):
    data = LEARNING[task]["data"]()
    algorithm = method_for(method, data, **LEARNING[task]["options"])
    untrained = scores_of(algorithm, data)[-1]
    trainer(LEARNING[task]["max_steps"], gradient_clip_val=1.0).fit(algorithm, data)
    before, *_, after = scores_of(algorithm, data)
    if task == "classification":
        assert after > untrained + 0.1 and after > before + 0.25
    else:
        assert after < 0.75 * untrained and after < 0.85 * before


def first_step(method, task, precision, callbacks=()):
    """What the first outer step, by SGD with lr 1, adds to the weights."""
    algorithm, data = small(method, task, optimizer=partial(torch.optim.SGD, lr=1.0), lr_scheduler=None)
    before = params_of(algorithm)
    trainer(1, callbacks, precision=precision).fit(algorithm, data)
    after = params_of(algorithm)
    return {name: after[name].double() - before[name].double() for name in before}, after


@each_method
@each_task
def test_float64_equals_float32(method, task):
    expected, _ = first_step(method, task, "32-true")
    actual, after = first_step(method, task, "64-true")
    assert {weight.dtype for weight in after.values()} == {torch.float64}
    assert 0 < relative_error(actual, expected) < 1e-3


@each_method
@each_task
@pytest.mark.parametrize("inner", ["mixed", "full"])
def test_bfloat16_is_near_float32(method, task, inner):
    expected, _ = first_step(method, task, "32-true")
    actual, after = first_step(method, task, "bf16-mixed", (InnerPrecision(inner),))
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    print("COS", method, task, inner, F.cosine_similarity(flat(actual), flat(expected), dim=0))
    assert 0.9 < F.cosine_similarity(flat(actual), flat(expected), dim=0) < 1


@each_method
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_trains_and_tests_in_other_precisions(method, precision):
    algorithm, data = small(method)
    run = trainer(3, precision=precision)
    run.fit(algorithm, data)
    assert run.global_step == data.cursor == 3
    run.test(algorithm, datamodule=data, verbose=False)
    assert all(0 <= score <= 1 for score in algorithm.evaluation["mean"])
    assert math.isfinite(run.callback_metrics["test/loss"])


@each_method
@each_task
def test_full_precision_inside_autocast(method, task):
    """Without autocast in the inner loop the adaptation is the one of float32."""
    algorithm, data = small(method, task)
    batch = Episode(*(tensor[None] for tensor in data.episode("train", 0)))
    algorithm.eval()
    adapted = []
    for enabled, inner in ((False, True), (True, False), (True, True)):
        algorithm.autocast_inner_loop = inner
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.inference_mode():
            result = algorithm.adapt(dict(algorithm.named_parameters()), *take(batch, 0)[:2])
        adapted.append(result.weights)
    assert all(torch.equal(adapted[0][name], adapted[1][name]) for name in adapted[0])
    assert not all(torch.equal(adapted[0][name], adapted[2][name]) for name in adapted[0])
