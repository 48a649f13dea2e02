"""Which classes or tasks are for training, validation and test."""

from itertools import pairwise

import numpy as np

from app.errors import InputError
from datamodules.files.image_split import SPLITS

Fractions = tuple[float, float, float]


def check_fractions(fractions: Fractions) -> None:
    """Raises an InputError unless they are shares of a whole."""
    if not (min(fractions) > 0 and abs(sum(fractions) - 1) < 1e-6):
        total = f"{sum(fractions):.6g}"
        raise InputError(f"--data.split_fractions {_listed(fractions)} sum to {total}; give 3 above 0 that sum to 1")


def deal(names: list[str], fractions: Fractions, split_seed: int, kind: str, source: str) -> dict[str, list[str]]:
    """The names of each split, sorted.

    Args:
        names: to be dealt, each once.
        fractions: shares for train, val and test.
        split_seed: of the order in which the sorted names are dealt.
        kind: what the names are of, for the message: classes or tasks.
        source: where they come from, for the message.
    """
    train, val, _ = fractions
    ends = [0, round(train * len(names)), round((train + val) * len(names)), len(names)]
    sizes = [end - start for start, end in pairwise(ends)]
    if min(sizes) < 1:
        raise InputError(
            f"--data.split_fractions {_listed(fractions)} deal the {len(names)} {kind} of {source} as "
            f"{_listed(sizes)} to train, val and test; every split needs at least 1: change them or add {kind}"
        )
    order = shuffled(names, split_seed)
    return {split: sorted(order[start:end]) for split, (start, end) in zip(SPLITS, pairwise(ends), strict=True)}


def shuffled(names: list[str], split_seed: int) -> list[str]:
    """The names in an order that `split_seed` alone decides."""
    if not 0 <= split_seed < 2**32:
        raise InputError(f"--data.split_seed is {split_seed}; give 0 to {2**32 - 1}")
    # RandomState, since numpy promises never to change its streams, as it may those of its newer generators.
    names = sorted(names)
    return [names[i] for i in np.random.RandomState(split_seed).permutation(len(names))]


def _listed(numbers: tuple | list) -> str:
    return " / ".join(map(str, numbers))
