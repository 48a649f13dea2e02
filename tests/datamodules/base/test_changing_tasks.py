"""Training tasks whose ways and shots are drawn for each outer step."""

from itertools import islice

import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.small import Blots

from app.errors import InputError

SIZES = {"ways": 3, "train_ways": (2, 6), "shots": 1, "train_shots": (1, 4), "queries": 2, "meta_batch_size": 4}


def blots(**options):
    data = Blots(**SIZES | options)
    data.setup()
    return data


def shapes(data, steps, split="train"):
    return [
        data.realise(split, data.draws(split, list(range(4 * step, 4 * step + 4)))).support_x.shape[1] for step in range(steps)
    ]


def test_sizes_are_equal_within_a_step_and_cover_the_ranges():
    data = blots()
    sizes = [data.task_size("train", index) for index in range(400)]
    assert all(len(set(sizes[first : first + 4])) == 1 for first in range(0, 400, 4))
    assert {ways for ways, _, _ in sizes} == {2, 3, 4, 5, 6} and {shots for _, shots, _ in sizes} == {1, 2, 3, 4}
    assert len({(ways, shots) for ways, shots, _ in sizes}) > 12  # one does not follow from the other
    assert shapes(data, 5) == [ways * shots for ways, shots, _ in sizes[:20:4]]
    episode = data.episode("train", 9)
    assert [len(tensor) for tensor in episode] == [sizes[9][0] * count for count in (sizes[9][1], sizes[9][1], 2, 2)]
    assert episode.query_y.unique().tolist() == list(range(sizes[9][0])) and data.train_output_size_at(9) == sizes[9][0]
    assert {data.task_size(split, index) for split in ("val", "test") for index in range(9)} == {(3, 1, 2)}
    other = blots(seed=1)
    assert sizes != [other.task_size("train", index) for index in range(400)]


class Run:
    training = True

    def __init__(self, rank, size):
        self.global_rank, self.world_size = rank, size


@pytest.mark.parametrize("processes", [1, 2])
def test_they_are_the_same_on_two_processes_and_after_a_resume(processes):
    whole = list(islice(blots().train_dataloader(), 5))
    shares = []
    for rank in range(processes):
        data = blots()
        data.trainer = Run(rank, processes)
        data.load_state_dict({"cursor": 2, "manifest_hash": data.manifest_hash})
        shares.append(list(islice(data.train_dataloader(), 3)))
    for batch, *parts in zip(whole[2:], *shares, strict=True):
        for number, rows in enumerate(batch.values):
            assert torch.equal(rows, torch.cat([part.values[number] for part in parts]))


def test_one_number_draws_what_it_drew():
    one, twice = blots(train_ways=4, train_shots=2), blots(train_ways=(4, 4), train_shots=(2, 2))
    assert torch.equal(one.draws("train", [5])[0], twice.draws("train", [5])[0])


def test_images_of_a_class_that_shots_and_queries_share():
    data = blots(train_class_images=6, val_shots=2)
    assert {shots + queries for _, shots, queries in (data.task_size("train", index) for index in range(0, 80, 4))} == {6}
    assert data.task_size("val", 0) == (3, 2, 2) and data.task_size("test", 0) == (3, 1, 2)
    assert [len(data.episode("val", 0).support_x), len(data.episode("test", 0).support_x)] == [6, 3]
    with pytest.raises(InputError, match=r"train_class_images 4 leaves no query beside --data\.train_shots 4; give at least 5"):
        blots(train_class_images=4)


@pytest.mark.parametrize("option", ["train_ways", "train_shots"])
@pytest.mark.parametrize("value", [0, (3, 2), (0, 3)])
def test_wrong_ranges(option, value):
    with pytest.raises(InputError, match=rf"--data.{option} is .*; give at least .*, or two such numbers, the smaller one first"):
        blots(**{option: value})


def test_a_range_that_the_classes_cannot_fill():
    with pytest.raises(InputError, match=r"--data\.train_ways 41; give at most 40"):
        blots(train_ways=(5, 41)).check()
    with pytest.raises(InputError, match=r"--data\.train_shots 7 \+ --data\.queries 2 = 9"):
        blots(train_shots=(1, 7)).check()


@pytest.mark.slow
def test_on_the_command_line(tmp_path):
    sizes = ["--data.train_ways=[2,5]", "--data.train_shots=1,2", "--data.meta_batch_size=2", "--data.val_episodes=2"]
    options = ["fit", "--data=Glyphs", *sizes, *QUIET, "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}"]
    refused = train(*options, "--model=MAML")
    assert refused.status == 1 and "--data.train_ways [2,5] draws another number of classes" in refused.err
    done = train(*options, "--model=UNICORN")
    assert done.status == 0, done.err
