"""Which classes or tasks are for training, validation and test."""

from itertools import pairwise

import numpy as np

from app.errors import InputError
from datamodules.files.image_split import SPLITS

Fractions = tuple[float, float, float]
USUAL: Fractions = (0.64, 0.16, 0.2)


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


def sizes_for_tasks(count: int, least: tuple[int, int, int]) -> list[int] | None:
    """How many classes train, val and test get: about the usual shares, but each enough for its tasks; null where too few.

    Args:
        count: of all classes.
        least: classes in a task of train, of val and of test.
    """
    if count < sum(least):
        return None
    train, val, _ = USUAL
    ends = [0, round(train * count), round((train + val) * count), count]
    _, val, test = (end - start for start, end in pairwise(ends))
    val, test = max(val, least[1]), max(test, least[2])
    if count - val - test < least[0]:
        val, test = least[1:]
    return [count - val - test, val, test]


def deal_classes(
    names: list[str], fractions: Fractions | None, split_seed: int, ways: tuple[int, int, int], source: str
) -> dict[str, list[str]]:
    """The classes of each split, sorted.

    Args:
        names: of all classes.
        fractions: shares for train, val and test; null for the usual ones, but in each split enough for its tasks.
        split_seed: of the order in which the sorted names are dealt.
        ways: classes in a task of train, of val and of test.
        source: where they come from, for the message.
    """
    count = len(names)
    if fractions:
        return deal(names, fractions, split_seed, "classes", source)
    sizes = sizes_for_tasks(count, ways)
    if sizes is None:
        remedy = f"give --data.ways {count // 3}" + " or fewer" * (count > 8) if count > 5 else "add classes, 6 are the least"
        raise InputError(
            f"--data.path {source} has {count} classes, tasks of --data.ways {ways[-1]} need {sum(ways)}, others in each of "
            f"train, val and test; {remedy}"
        )
    ends, order = np.cumsum([0, *sizes]), shuffled(names, split_seed)
    return {split: sorted(order[start:end]) for split, (start, end) in zip(SPLITS, pairwise(ends), strict=True)}


def folds_of(names: list[str], folds: int, fold: int, split_seed: int) -> dict[str, list[str]]:
    """The names of each split, sorted: a fold for test, the next one for val, all others for train.

    Args:
        names: to be dealt, each once.
        folds: so many parts of about equal size, at least 3.
        fold: number of the one that is tested.
        split_seed: of the order in which the sorted names are dealt.
    """
    order = shuffled(names, split_seed)
    parts = [order[number::folds] for number in range(folds)]
    test, val = parts[fold], parts[(fold + 1) % folds]
    train = [name for part in parts if part is not test and part is not val for name in part]
    return {"train": sorted(train), "val": sorted(val), "test": sorted(test)}


def shuffled(names: list[str], split_seed: int) -> list[str]:
    """The names in an order that `split_seed` alone decides."""
    if not 0 <= split_seed < 2**32:
        raise InputError(f"--data.split_seed is {split_seed}; give 0 to {2**32 - 1}")
    # RandomState, since numpy promises never to change its streams, as it may those of its newer generators.
    names = sorted(names)
    return [names[i] for i in np.random.RandomState(split_seed).permutation(len(names))]


def _listed(numbers: tuple | list) -> str:
    return " / ".join(map(str, numbers))
