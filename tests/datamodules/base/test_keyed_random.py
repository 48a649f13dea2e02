"""Random numbers as a function of words."""

from datamodules.base.keyed_random import Numbers, generator_of


def test_a_number_is_the_first_of_the_generator_of_its_words():
    numbers = Numbers()
    for limit in (1, 2, 7, 1000, 2**31 + 5, 2**40):
        for at in range(50):
            assert numbers.below(limit, 3, "reservoir", at) == generator_of(3, "reservoir", at).integers(limit)
