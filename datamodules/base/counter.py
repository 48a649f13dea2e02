"""Random numbers as a function of their place, those of all episodes of a batch at once.

A generator of numpy for each episode costs more than all else that is done for it.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LARGEST = np.iinfo(np.uint64).max


def streams(parents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Numbers of these places in each parent's stream of SplitMix64 (Steele, Lea, Flood 2014).

    They are random numbers, or the parents of streams of their own.

    Args:
        parents: any 64-bit numbers.
        numbers: places in the stream, of shape (places,).

    Returns:
        uint64 below 2**64, of shape (*parents.shape, places).
    """
    state = parents[..., None] + (np.asarray(numbers).astype(np.uint64) + np.uint64(1)) * GOLDEN  # modulo 2**64
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def choose_each(parents: np.ndarray, totals: np.ndarray, count: int) -> np.ndarray:
    """`count` different numbers below each of `totals`, in random order; a row depends on its own parent and total alone.

    Args:
        parents: of shape (rows,).
        totals: at least `count`, of shape (rows,).
        count: how many.

    Returns:
        int64 of shape (rows, count).
    """
    chosen = np.empty((len(parents), count), np.int64)
    crowded = count * count > 2 * totals  # where most draws would have a number twice, all are shuffled
    if crowded.any():
        limits = totals[crowded, None]
        places = np.arange(limits.max())
        keys = np.where(places < limits, streams(parents[crowded], places), LARGEST)
        chosen[crowded] = keys.argsort(1)[:, :count]
    rows, first = np.flatnonzero(~crowded), 0
    while len(rows):
        drawn = streams(parents[rows], np.arange(first, first + count)) % totals[rows, None].astype(np.uint64)
        chosen[rows] = drawn
        drawn.sort(1)
        rows, first = rows[(drawn[:, 1:] == drawn[:, :-1]).any(1)], first + count
    return chosen
