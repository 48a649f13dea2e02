"""Whether two samples of each of several classes come from one distribution, by permuting which row is of which sample."""

from typing import NamedTuple

import torch
from torch import Tensor

PERMUTATIONS = 999  # with the order that was found 1,000, so the least p-value is 0.001


class PValues(NamedTuple):
    """How often chance alone does as much.

    Attributes:
        together: of the hypothesis that nothing differs in any class.
        of_class: of each class, adjusted for all of them: the chance that any class is falsely at or below a level is that level.
    """

    together: float
    of_class: list[float]


def two_sample_test(pairs: list[tuple[Tensor, Tensor]], generator: torch.Generator) -> PValues:
    """A permutation test of the energy distance of two samples (Székely and Rizzo 2004), for several classes at once.

    Under the hypothesis the rows of both samples of a class are exchangeable, so each permutation of them is as probable as what
    was found: the test holds its level with any number of rows, of any distribution. The distances of the classes are brought to
    one scale by their mean and deviation over the permutations. Their sum tests all together; their maximum, step-down, adjusts
    the p-value of each for all others (Westfall and Young 1993).

    Args:
        pairs: of each class the two samples, of shape (rows, features) and (others, features).
        generator: draws the permutations.
    """
    found = torch.stack([_energies(*pair, generator) for pair in pairs], 1)  # of shape (1 + permutations, classes)
    deviation = found.std(0)
    scaled = (found - found.mean(0)) / deviation.where(deviation > 0, 1.0)
    order = scaled[0].argsort(descending=True)
    # Beside the maximum over the classes that differ no more than this one.
    rest = scaled[:, order].flip(1).cummax(1).values.flip(1)
    adjusted = _share_at_least(rest).cummax(0).values
    return PValues(_share_at_least(scaled.sum(1, keepdim=True)).item(), adjusted[order.argsort()].tolist())


def _share_at_least(values: Tensor) -> Tensor:
    """Of each column, the share of its rows that are no less than the first, but for rounding."""
    slack = 1e-9 * values.abs().amax(0)
    return (values >= values[0] - slack).double().mean(0)


def _energies(one: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Energy distances of the samples as they are, then of permuted ones, of shape (1 + permutations,)."""
    rows = torch.cat([one, other]).double()
    count, total = len(one), len(rows)
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    drawn = torch.rand(PERMUTATIONS, total, generator=generator).argsort(1)
    order = torch.cat([torch.arange(total)[None], drawn])
    is_one = torch.zeros(len(order), total, dtype=rows.dtype).scatter_(1, order[:, :count], 1.0)
    from_one = is_one @ distances
    within_one, all_of_one = (from_one * is_one).sum(1), from_one.sum(1)
    across = all_of_one - within_one
    within_other = distances.sum() - 2 * all_of_one + within_one
    others = total - count
    return 2 * across / (count * others) - within_one / count**2 - within_other / others**2
