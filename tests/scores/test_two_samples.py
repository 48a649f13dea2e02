"""The permutation test of several classes: its level, and what it finds."""

import pytest
import torch

from app.scores import two_samples
from app.scores.two_samples import two_sample_test

LEVEL = 0.1


def skewed(generator: torch.Generator, rows: int) -> torch.Tensor:
    """Rows that are far from normal, of a common size that has heavy tails."""
    return torch.randn(rows, 3, generator=generator).exp() * torch.rand(rows, 1, generator=generator).reciprocal()


def test_energy_distances_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(4, 3, generator=generator).double(), 1 + torch.randn(6, 3, generator=generator).double()

    def mean(a, b):
        return torch.stack([(x - y).norm() for x in a for y in b]).mean()

    expected = 2 * mean(one, other) - mean(one, one) - mean(other, other)
    assert torch.isclose(two_samples._energies(one, other, generator)[0], expected, rtol=1e-12)


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated(monkeypatch):
    """In 600 calls in which nothing has changed: alarms of any class, and of all together, each at a level of 10 %."""
    monkeypatch.setattr(two_samples, "PERMUTATIONS", 199)
    generator = torch.Generator().manual_seed(1)
    calls, any_class, together = 600, 0, 0
    for _ in range(calls):
        pairs = [(skewed(generator, new), skewed(generator, old)) for new, old in ((6, 10), (4, 4), (9, 20))]
        found = two_sample_test(pairs, generator)
        any_class += min(found.of_class) <= LEVEL
        together += found.together <= LEVEL
    spread = 3 * (calls * LEVEL * (1 - LEVEL)) ** 0.5
    assert abs(any_class - calls * LEVEL) < spread and abs(together - calls * LEVEL) < spread, (any_class, together)


def test_what_changed_is_named_and_nothing_else():
    generator = torch.Generator().manual_seed(2)
    calls, false_names = 40, 0
    for _ in range(calls):
        pairs = [(skewed(generator, 10), skewed(generator, 12)) for _ in range(4)]
        pairs[1] = (pairs[1][0] + 500, pairs[1][1])
        found = two_sample_test(pairs, generator)
        assert found.of_class[1] <= 0.005 and found.together <= LEVEL
        false_names += min(found.of_class[number] for number in (0, 2, 3)) <= LEVEL
    assert false_names <= calls * LEVEL + 3 * (calls * LEVEL * (1 - LEVEL)) ** 0.5


def test_a_little_in_every_class_is_seen_together():
    generator = torch.Generator().manual_seed(3)
    pairs = [(torch.randn(2, 3, generator=generator) + 3, torch.randn(4, 3, generator=generator)) for _ in range(30)]
    found = two_sample_test(pairs, generator)
    assert found.together == pytest.approx(0.001) and min(found.of_class) > 0.02


def test_what_cannot_differ_is_no_alarm():
    found = two_sample_test([(torch.ones(3, 2), torch.ones(4, 2)), (torch.zeros(1, 2), torch.ones(1, 2))], torch.Generator())
    assert found.together == 1 and found.of_class == [1, 1]
