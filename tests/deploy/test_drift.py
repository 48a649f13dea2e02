"""What a learner says of examples that do not look like what it learned."""

from functools import partial

import pytest
import torch
from helpers.living import predictor

from app.backbones.conv4 import Conv4
from app.deploy.living_learner import LivingLearner


def noisy(number: int, rows: int, seed: int) -> torch.Tensor:
    """Pictures of a class: a pattern of its own, and noise of each picture."""
    pattern = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(number))
    noise = torch.rand(rows, 1, 16, 16, generator=torch.Generator().manual_seed(1000 * seed + number))
    return (0.6 * pattern + 0.4 * noise) * 0.8


def taught(learner: LivingLearner, seed: int, rows: int, classes: int = 3, changed=lambda x: x, **options):
    x = changed(torch.cat([noisy(number, rows, seed) for number in range(classes)]))
    return learner.learn(x, [f"class {number}" for number in range(classes) for _ in range(rows)], **options)


@pytest.mark.parametrize("method", ["ProtoNet", "MatchingNet", "MAML", "OML", "NeuralStatistician", "ANML"])
def test_it_is_seen_in_every_kind_of_memory(method):
    source = predictor(method, backbone=partial(Conv4, width=32, downsample="max_pool"))
    learner = source.learner()
    assert taught(learner, 1, 12).drift is None  # all is new
    calm = taught(learner, 2, 8, alarm_rate=0.01).drift
    assert set(calm.of_name) == {"class 0", "class 1", "class 2"} and not calm.is_seen
    drift = taught(learner, 3, 8, changed=lambda x: torch.cat([x[:8], noisy(7, 8, 9), x[16:]])).drift
    assert drift.names == ["class 1"] and drift.is_seen
    assert learner.ledger.journal[-1]["drift"] == {"seen": True, "names": ["class 1"]}
    assert taught(learner, 4, 8, alarm_rate=None).drift is None


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated():
    """From picture to alarm: 100 calls in which nothing has changed, at a rate of 30 %."""
    source, alarms, calls, rate = predictor("ProtoNet"), 0, 100, 0.3
    for seed in range(calls):
        learner = source.learner()
        taught(learner, 2 * seed, 6)
        alarms += taught(learner, 2 * seed + 1, 5, alarm_rate=rate).drift.is_seen
    assert alarms <= calls * rate + 3 * (calls * rate * (1 - rate)) ** 0.5, alarms


def test_what_it_says_does_not_depend_on_the_order_and_follows_a_window():
    source, found = predictor("MatchingNet"), []
    for order in (range(30), reversed(range(30))):
        learner, rows = source.learner(), list(order)
        x, y = torch.cat([noisy(number, 10, 1) for number in range(3)]), [f"class {number // 10}" for number in range(30)]
        learner.learn(x[rows], [y[row] for row in rows])
        found.append(taught(learner, 2, 6).drift)
    assert found[0] == found[1]

    learner = source.learner(window=8)
    taught(learner, 1, 8, changed=lambda x: 1 - x)
    taught(learner, 2, 8)
    assert not taught(learner, 3, 8).drift.is_seen  # what was different has faded
    learner.forget("class 0")
    assert taught(learner, 4, 8).drift.of_name.keys() == {"class 1", "class 2"}


def test_merging_compares_too():
    source = predictor("ProtoNet")
    one, other = source.learner(), source.learner()
    taught(one, 1, 10)
    taught(other, 2, 10, changed=lambda x: torch.cat([x[:10] * 0.2, x[10:]]))
    assert one.merge(other).drift.names == ["class 0"]


def test_tasks_of_a_regression():
    source = predictor("CNP")
    learner = source.learner()
    x = torch.rand(40, 1, generator=torch.Generator().manual_seed(0))
    learner.learn(x[:20], x[:20] * 3, "a")
    assert not learner.learn(x[20:30], x[20:30] * 3, "a").drift.is_seen
    assert learner.learn(x[30:], x[30:] * 3 - 5, "a").drift.names == ["a"]
