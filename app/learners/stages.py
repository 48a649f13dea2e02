"""Which stages of an adaptation are scored."""

from collections.abc import Iterator
from typing import Any

FIRST_STAGES = 10  # of an adaptation, each scored in `test`: papers print no more


def stages_to_score(stages: Iterator[Any], split: str) -> Iterator[tuple[int, Any]]:
    """Those stages of an adaptation that are scored, each with its number: 0, 1, 2, ...

    The first, the last and those whose number is a power of two; `test` all of the first ten, too.
    """
    number, following = 0, next(stages)
    while following is not None:
        stage, following = following, next(stages, None)
        is_first = split == "test" and number <= FIRST_STAGES
        if is_first or number & (number - 1) == 0 or following is None:
            yield number, stage
        number += 1
