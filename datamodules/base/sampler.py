"""Which episodes each process takes at each step."""

from collections.abc import Iterator


class EpisodeSampler:
    """Endless batches of episode numbers for training, for one of `world_size` processes.

    Step n is made of episodes n * batch_size to (n + 1) * batch_size - 1, and every process takes an equal, contiguous share.

    Args:
        batch_size: episodes in a batch, over all processes.
        rank: number of this process.
        world_size: number of processes.
        start: the first step.
    """

    def __init__(self, batch_size: int, rank: int = 0, world_size: int = 1, start: int = 0):
        self.share = max(1, batch_size // world_size)
        self.batch_size, self.rank, self.start = batch_size, rank, start

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            first = step * self.batch_size + self.rank * self.share
            yield list(range(first, first + self.share))
            step += 1


def first_of_share(num_episodes: int, rank: int, world_size: int, block_size: int | None = None) -> int:
    """The first episode of a process, each of which evaluates one contiguous share; for `world_size` their number.

    Args:
        num_episodes: over all processes.
        rank: number of the process.
        world_size: number of processes.
        block_size: episodes that stay together; null for none.
    """
    size = block_size or 1
    return min(num_episodes, -(-num_episodes // size) * rank // world_size * size)


class EvaluationSampler:
    """Every one of `num_episodes` once, in batches for one of `world_size` processes.

    Every process gets one contiguous share, so that scores gathered in the order of the ranks are in the order of the episodes.
    No batch crosses a multiple of `batch_size`: the episodes between two multiples may have a size of their own.

    Args:
        batch_size: episodes in a batch, over all processes.
        rank: number of this process.
        world_size: number of processes.
        num_episodes: over all processes.
        block_size: episodes in a batch, the same ones on any number of processes; null for what `batch_size` says.
    """

    def __init__(self, batch_size: int, rank: int = 0, world_size: int = 1, *, num_episodes: int, block_size: int | None = None):
        share = block_size or max(1, batch_size // world_size)
        first, end = (first_of_share(num_episodes, number, world_size, block_size) for number in (rank, rank + 1))
        self.batches: list[list[int]] = []
        while first < end:
            following = min(first + share, (first // batch_size + 1) * batch_size, end)
            self.batches.append(list(range(first, following)))
            first = following

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
