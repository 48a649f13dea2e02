"""Schedules against their formulas, alone and in a run that steps or time end."""

import math
import pickle
from datetime import timedelta
from functools import partial

import pytest
import torch
from helpers.small import algorithm_for, trainer
from lightning import Callback
from lightning.pytorch.callbacks import Timer

from app.algorithms.optimisation_based.maml import MAML
from app.errors import InputError
from app.learners.lr_schedule import CosineDecay, LinearDecay, Stages
from datamodules.sinusoid import Sinusoid

FORMULAS = {LinearDecay: lambda p: 1 - p, CosineDecay: lambda p: 0.5 * (1 + math.cos(math.pi * p))}

each_schedule = pytest.mark.parametrize("schedule", FORMULAS)


def optimizer_of(lrs=(0.5, 2.0)):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs])


def go_to(scheduler, progress):
    scheduler.progress = lambda: progress
    scheduler.optimizer.step()
    scheduler.step()
    return scheduler.get_last_lr()


class RecordLR(Callback):
    """Keeps the learning rate that each outer step takes."""

    def __init__(self):
        self.lrs = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])


def run_lrs(schedule, max_steps, callbacks=(), lr=0.25):
    """Learning rates of the steps of a run, and the one after the last step."""
    data = Sinusoid(queries=5, meta_batch_size=2)
    model = algorithm_for(
        MAML, data, inner_lr=0.01, optimizer=lambda params: torch.optim.SGD(params, lr=lr), lr_scheduler=schedule
    )
    record, run = RecordLR(), trainer(max_steps, callbacks)
    run.callbacks.append(record)
    for timer in callbacks:
        timer.time_elapsed = lambda stage="train": 30.0 * run.global_step
    run.fit(model, data)
    return [*record.lrs, run.optimizers[0].param_groups[0]["lr"]]


@each_schedule
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_equals_its_formula(schedule, final):
    scheduler = schedule(optimizer_of(), final)
    assert scheduler.get_last_lr() == [0.5, 2.0]
    for progress in (0.0, 0.1, 0.5, 0.99, 1.0):
        factor = final + (1 - final) * FORMULAS[schedule](progress)
        assert go_to(scheduler, progress) == pytest.approx([0.5 * factor, 2.0 * factor], rel=1e-14, abs=1e-16)


@each_schedule
def test_stays_at_the_end_when_the_run_goes_over_it(schedule):
    scheduler = schedule(optimizer_of(), final=0.1)
    assert go_to(scheduler, 1.7) == go_to(scheduler, 1.0) == pytest.approx([0.05, 0.2], rel=1e-14)


@each_schedule
def test_state_goes_on_in_another_process(schedule):
    optimizer = optimizer_of()
    scheduler = schedule(optimizer, final=0.1)
    go_to(scheduler, 0.3)
    saved = pickle.dumps((optimizer.state_dict(), scheduler.state_dict()))
    resumed = schedule(optimizer_of(lrs=(7.0, 7.0)))
    resumed.progress = lambda: 0.6
    for target, state in zip((resumed.optimizer, resumed), pickle.loads(saved), strict=True):
        target.load_state_dict(state)
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert resumed.progress() == 0.6  # its own, not the one of the run that was saved
    assert go_to(resumed, 0.6) == go_to(scheduler, 0.6)
    assert resumed.last_epoch == scheduler.last_epoch == 2


@each_schedule
def test_follows_max_steps(schedule):
    expected = [0.25 * FORMULAS[schedule](step / 5) for step in range(6)]
    assert run_lrs(schedule, max_steps=5) == pytest.approx(expected, rel=1e-14, abs=1e-16)


@pytest.mark.slow
@each_schedule
def test_follows_max_time_where_that_ends_the_run_first(schedule):
    expected = [0.25 * FORMULAS[schedule](share) for share in (0.0, 0.3, 0.6, 0.9, 1.0)]  # 30 of 100 seconds a step
    timer = Timer(timedelta(seconds=100))
    assert run_lrs(schedule, max_steps=1000, callbacks=(timer,)) == pytest.approx(expected, rel=1e-14, abs=1e-16)
    assert run_lrs(schedule, max_steps=-1, callbacks=(timer,)) == pytest.approx(expected, rel=1e-14, abs=1e-16)


def test_follows_max_steps_where_they_end_the_run_first():
    timer = Timer(timedelta(seconds=1000))
    assert run_lrs(LinearDecay, max_steps=5, callbacks=(timer,)) == pytest.approx([0.25, 0.2, 0.15, 0.1, 0.05, 0], abs=1e-16)


def test_a_timer_without_duration_measures_only():
    assert run_lrs(LinearDecay, max_steps=2, callbacks=(Timer(),)) == [0.25, 0.125, 0.0]


def test_max_time_of_the_trainer_is_seen():
    run = trainer(-1, max_time=timedelta(seconds=40))
    data = Sinusoid(queries=5, meta_batch_size=2)
    model = algorithm_for(MAML, data, inner_lr=0.01)
    model.trainer = run
    (timer,) = (callback for callback in run.callbacks if isinstance(callback, Timer))
    timer.load_state_dict({"time_elapsed": {"train": 10.0}})  # of the run that this one goes on from
    assert model.progress() == 0.25


def test_stages_begin_at_their_steps():
    stages = partial(Stages, milestones=[2, 3], factors=[0.06, 0.012])
    assert run_lrs(stages, max_steps=4, lr=0.1) == pytest.approx([0.1, 0.1, 0.006, 0.0012, 0.0012], rel=1e-14)


@pytest.mark.parametrize(("milestones", "factors"), [([2, 3], [0.1]), ([3, 2], [0.1, 0.01])])
def test_stages_name_what_does_not_fit(milestones, factors):
    with pytest.raises(InputError, match=r"milestones .* give a factor for each step"):
        Stages(optimizer_of(), milestones, factors)
