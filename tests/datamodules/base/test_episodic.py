"""Which episode is whose: a pure function, shared among any number of processes."""

from itertools import islice

import numpy as np
import pytest
import torch

from app.errors import InputError
from datamodules.base.sampler import EpisodeSampler, EvaluationSampler
from datamodules.sinusoid import Sinusoid


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_training_steps_are_shared_equally(world_size):
    ranks = [list(islice(EpisodeSampler(8, rank, world_size, start=3), 5)) for rank in range(world_size)]
    for number, shares in enumerate(zip(*ranks, strict=True)):
        assert [episode for share in shares for episode in share] == list(range((3 + number) * 8, (4 + number) * 8))
        assert {len(share) for share in shares} == {8 // world_size}


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_episodes", [7, 12, 25])
def test_every_evaluation_episode_is_scored_once_in_the_order_of_the_ranks(world_size, num_episodes):
    samplers = [EvaluationSampler(8, rank, world_size, num_episodes=num_episodes) for rank in range(world_size)]
    batches = [list(sampler) for sampler in samplers]
    assert [episode for rank in batches for batch in rank for episode in batch] == list(range(num_episodes))
    assert [len(rank) for rank in batches] == [len(sampler) for sampler in samplers]
    for batch in (batch for rank in batches for batch in rank):
        assert {episode // 8 for episode in batch} == {batch[0] // 8}  # within a block
        assert len(batch) <= max(1, 8 // world_size)


def test_an_episode_depends_on_seed_split_and_index_alone():
    data, again = Sinusoid(seed=3), Sinusoid(seed=3, meta_batch_size=7, num_workers=0)
    again.draw("train", 9), np.random.seed(1)
    first = data.draw("train", 4)
    for values, same in zip(first, again.draw("train", 4), strict=True):
        np.testing.assert_array_equal(values, same)
    for other in (data.draw("train", 5), data.draw("val", 4), Sinusoid(seed=4).draw("train", 4)):
        assert not np.array_equal(first[0], other[0])


def test_a_block_shares_a_stream_of_its_own():
    data = Sinusoid(seed=3, meta_batch_size=4)
    values = [data.block_generator("val", index).random() for index in range(12)]
    assert len(set(values)) == 3 and all(len(set(values[first : first + 4])) == 1 for first in (0, 4, 8))
    assert values[8] != data.generator("val", 2).random()
    assert values[8] != Sinusoid(seed=4, meta_batch_size=4).block_generator("val", 8).random()


def test_workers_do_not_change_the_episodes():
    batches = [next(iter(Sinusoid(meta_batch_size=3, num_workers=workers).train_dataloader())) for workers in (0, 1)]
    for one, two in zip(*(batch.values for batch in batches), strict=True):
        assert torch.equal(one, two)


def test_training_goes_on_at_the_cursor():
    data = Sinusoid(meta_batch_size=2)
    data.load_state_dict({"cursor": 5, "manifest_hash": data.manifest_hash})
    batch = next(iter(data.train_dataloader())).values
    np.testing.assert_array_equal(batch[0][1].numpy(), data.draw("train", 11)[0])
    assert data.state_dict()["cursor"] == 5


@pytest.mark.parametrize("option", ["meta_batch_size", "val_episodes", "test_episodes", "shots", "queries"])
def test_numbers_below_one_are_refused(option):
    with pytest.raises(InputError, match=f"--data.{option} is 0"):
        Sinusoid(**{option: 0})


REFUSED = [({"meta_batch_size": 6}, 4, ["6", "4", "8"]), ({"val_episodes": 1}, 2, ["1", "2"])]


@pytest.mark.parametrize("options, processes, words", REFUSED)
def test_tasks_that_cannot_be_shared_are_refused(options, processes, words):
    with pytest.raises(InputError) as error:
        Sinusoid(**{"meta_batch_size": 4, **options}).check_processes(processes)
    assert all(word in str(error.value) for word in words)
