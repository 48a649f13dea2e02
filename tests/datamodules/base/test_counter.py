"""Random numbers as a function of their place."""

from itertools import permutations

import numpy as np
import pytest
from helpers.small import Blots

from datamodules.base.counter import choose_each, streams


def test_the_published_stream():
    """The first outputs of Vigna's splitmix64.c from the state 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert streams(np.array(1234567, np.uint64), np.arange(5)).tolist() == expected


@pytest.mark.parametrize("total, count", [(5, 5), (5, 2), (6, 3), (4, 1), (1, 1)])
def test_every_choice_in_every_order_is_as_frequent(total, count):
    parents = streams(np.array(3, np.uint64), np.arange(60_000))
    chosen, frequency = np.unique(choose_each(parents, np.full(len(parents), total), count), axis=0, return_counts=True)
    assert chosen.tolist() == [list(order) for order in permutations(range(total), count)]
    expected = len(parents) / len(chosen)
    chi_squared, freedom = ((frequency - expected) ** 2 / expected).sum(), len(chosen) - 1
    assert chi_squared <= freedom + 4 * np.sqrt(2 * freedom)


def test_a_row_depends_on_itself_alone():
    parents, totals = streams(np.array(3, np.uint64), np.arange(200)), 4 + np.arange(200) % 23
    together = choose_each(parents, totals, 4)
    assert all(len(set(row)) == 4 and min(row) >= 0 and max(row) < total for row, total in zip(together, totals, strict=True))
    for row in range(200):
        np.testing.assert_array_equal(choose_each(parents[row : row + 1], totals[row : row + 1], 4)[0], together[row])


def test_episodes_of_a_batch_are_those_drawn_alone():
    data = Blots(ways=3, shots=2, queries=2, seed=2**64 - 1)
    data.setup()
    together = np.concatenate(data.draws("train", [5, 3, 2**40]), 2)
    for rows, index in zip(together, (5, 3, 2**40), strict=True):
        np.testing.assert_array_equal(rows, np.concatenate(data.draw("train", index), 1))
        assert len(np.unique(rows)) == 12 and (rows // 8 == rows[:, :1] // 8).all()  # eight images a class
    other = Blots(ways=3, shots=2, queries=2, seed=1)
    other.setup()
    rows, _ = data.draw("train", 5)
    for different in (data.draw("train", 6), data.draw("val", 5), other.draw("train", 5)):
        assert (different[0] != rows).any()
