"""A loss or gradient that is not finite undoes its step, bit for bit, and stops the run."""

import math
from functools import partial

import pytest
import torch
from helpers.small import algorithm_for, in_turn, trainer

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.algorithms.optimisation_based.reptile import Reptile
from app.errors import InputError
from callbacks.finite_guard import FiniteGuard
from datamodules.sinusoid import Sinusoid

FAULTS = ["loss", "gradient", "one entry"]
METHODS = [MAML, MetaSGD, Reptile]
VALUES = [math.nan, math.inf, -math.inf]
PAIRS = [  # of method and fault, method and value, fault and value
    (cls, fault, VALUES[(row + column) % 3]) for row, cls in enumerate(METHODS) for column, fault in enumerate(FAULTS)
]


def faulty(cls, at_step, fault="loss", value=math.nan, **wanted):
    """A method whose outer loss, outer gradient or a single entry of it is not finite at one step; null for a sound one."""

    class Faulty(cls):
        def outer_gradient(self, params, batch, first_episode=0):
            gradient, metrics = super().outer_gradient(params, batch, first_episode)
            if self.global_step == at_step:
                if fault == "loss":
                    metrics["outer_loss"] = metrics["outer_loss"] + value
                elif fault == "gradient":
                    gradient = {name: tensor * value for name, tensor in gradient.items()}
                else:
                    next(reversed(gradient.values())).view(-1)[0] = value
            return gradient, metrics

    data = Sinusoid(queries=5, meta_batch_size=2)
    wanted |= {"inner_lr": 0.01, "inner_steps": 2, "step_size_range": (0.0, 0.02), "lr_scheduler": None}
    return algorithm_for(Faulty, data, **wanted), data


def state_of(algorithm, run):
    """Copies of all weights, buffers and tensors of the optimiser's state."""
    optimizer = run.optimizers[0].state_dict()["state"]
    state = {(number, name): value for number, values in optimizer.items() for name, value in values.items()}
    return {key: value.clone() for key, value in (algorithm.state_dict() | state).items()}


def fit(algorithm, data, max_steps, guard=None, **wanted):
    run = trainer(max_steps, (guard or FiniteGuard(),), **wanted)
    run.fit(algorithm, data)
    return run


def fit_until_it_stops(algorithm, data, step, max_steps=6, **wanted):
    run = trainer(max_steps, (FiniteGuard(),), **wanted)
    with pytest.raises(InputError, match=f"became NaN or infinite at step {step};"):
        run.fit(algorithm, data)
    return run


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(actual[key], expected[key])] == []
    assert all(value.isfinite().all() for value in actual.values())


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "fault", "value"), PAIRS)
def test_the_state_is_the_one_before_the_step(cls, fault, value):
    sound, data = faulty(cls, at_step=None)
    expected = state_of(sound, fit(sound, data, max_steps=3))
    algorithm, data = faulty(cls, 3, fault, value)
    run = fit_until_it_stops(algorithm, data, step=3)
    assert data.cursor == 4
    assert_same_bits(state_of(algorithm, run), expected)


def test_momentum_and_clipping():
    wanted = {"optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9)}
    sound, data = faulty(MAML, None, **wanted)
    expected = state_of(sound, fit(sound, data, max_steps=2, gradient_clip_val=0.5))
    algorithm, data = faulty(MAML, 2, "one entry", **wanted)
    run = fit_until_it_stops(algorithm, data, step=2, gradient_clip_val=0.5)
    assert_same_bits(state_of(algorithm, run), expected)


@pytest.mark.parametrize("cls", [MAML, Reptile])
def test_the_very_first_step(cls):
    algorithm, data = faulty(cls, 0, "gradient")
    start = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    run = fit_until_it_stops(algorithm, data, step=0)
    state = state_of(algorithm, run)
    assert_same_bits({name: state[name] for name in start}, start)
    assert not any(state[key].any() for key in state.keys() - start.keys())  # Adam's state starts from zero


class LateGuard(FiniteGuard):
    """Reads its flag when asked only, as on a GPU between two log intervals."""

    def on_train_batch_end(self, *args):
        pass


@pytest.mark.parametrize(("cls", "fault"), in_turn([MAML, Reptile], FAULTS))
def test_steps_until_the_flag_is_read_are_undone_too(cls, fault):
    sound, data = faulty(cls, None)
    expected = state_of(sound, fit(sound, data, max_steps=2))
    algorithm, data = faulty(cls, 2, fault)
    guard = LateGuard()
    run = fit(algorithm, data, max_steps=6, guard=guard)
    assert_same_bits(state_of(algorithm, run), expected)
    with pytest.raises(InputError, match="became NaN or infinite at step 2;"):
        guard.stop_if_bad()


def test_a_sound_run_is_left_alone():
    guarded, data = faulty(MetaSGD, None)
    expected, others = faulty(MetaSGD, None)
    run, plain = fit(guarded, data, max_steps=4), trainer(4)
    plain.fit(expected, others)
    assert_same_bits(state_of(guarded, run), state_of(expected, plain))
    assert run.callback_metrics["train/outer_gradient_norm"] > 0


def test_a_finite_run_after_a_bad_one():
    algorithm, data = faulty(MAML, 1)
    guard = FiniteGuard()
    with pytest.raises(InputError):
        fit(algorithm, data, max_steps=3, guard=guard)
    sound, data = faulty(MAML, None)
    assert fit(sound, data, max_steps=3, guard=guard).global_step == 3


def test_a_real_divergence_names_the_step_and_the_remedy():
    data = Sinusoid(queries=5, meta_batch_size=2)
    algorithm = algorithm_for(MAML, data, inner_lr=0.01, optimizer=partial(torch.optim.SGD, lr=1e6))
    run = trainer(50, (FiniteGuard(),))
    with pytest.raises(InputError, match=r"at step (\d+);.*lower --model.optimizer.lr") as error:
        run.fit(algorithm, data)
    step = int(str(error.value).split("at step ")[1].split(";")[0])
    assert 0 < step < 50 and run.global_step == step + 1
    assert all(parameter.isfinite().all() for parameter in algorithm.parameters())
