"""The number that corrects how sure a learner sounds."""

import pytest
import torch

from app.scores.temperature import Claims, tempered


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_of_probabilities_is_found(true):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial((logits / true).softmax(-1), 1, generator=generator)[:, 0]
    claims = Claims()
    for part, own in zip((logits).softmax(-1).split(3000), labels.split(3000), strict=True):
        claims.add(part, own)
    assert claims.temperature() == pytest.approx(true, rel=0.05)
    assert torch.allclose(tempered(logits.softmax(-1), true), (logits / true).softmax(-1), atol=1e-6)


def test_intervals_hold_95_percent_after_it():
    claims, errors = Claims(), 2.5 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    claims.add(errors, torch.zeros(0), range(10_000))
    factor = claims.temperature()
    assert factor == pytest.approx(2.5, rel=0.05)
    assert (errors.abs() <= 1.96 * factor).double().mean() == pytest.approx(0.95, abs=1e-3)


def test_few_groups_make_intervals_wider():
    factors = []
    for groups in (3, 30, 3000):
        claims = Claims()
        claims.add(torch.linspace(-3, 3, 999), torch.zeros(0), range(groups))
        factors.append(claims.temperature())
    assert factors[0] / factors[2] == pytest.approx(2.447 / 1.960, rel=1e-3) and factors[0] > factors[1] > factors[2]


@pytest.mark.parametrize("groups", [2, 3, 5, 10])
def test_intervals_hold_95_percent_on_average_over_choices_of_groups(groups):
    """Where the mean squared errors of groups vary as much as they are large."""
    generator, covered = torch.Generator().manual_seed(groups), []
    for _ in range(200):
        scales = torch.empty(groups + 100).exponential_(generator=generator).sqrt()
        errors = scales[:, None] * torch.randn(len(scales), 20, generator=generator)
        claims = Claims()
        claims.add(errors[:groups].flatten(), torch.zeros(0), range(groups))
        covered.append((errors[groups:].abs() <= 1.96 * claims.temperature()).double().mean())
    assert 0.93 < torch.stack(covered).mean() < 0.97


def test_nothing_finite_was_said():
    assert Claims().temperature() is None
    claims = Claims()
    claims.add(torch.full((3, 2), torch.nan), torch.zeros(3, dtype=torch.int64))
    assert claims.temperature() is None
