"""Streams of functions: sine waves, and the groups of a table."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.errors import InputError
from datamodules.sine_stream import SineStream
from datamodules.table_stream import TableStream


def test_the_waves_are_those_of_the_paper():
    stream = SineStream(seed=3)
    assert len(stream.experiences) == 10 and stream.num_steps == 400 and stream.input_shape == (11,)
    for number in (0, 7):
        amplitude, phase = stream._waves[number]
        assert 0.1 <= amplitude <= 5 and 0 <= phase <= np.pi
        assert stream.titles[number] == f"{amplitude:.2f} sin(z + {phase:.2f})"
        for split, count in (("train", 320), ("test", 100)):
            x, y = stream.samples(number, split)
            assert x.shape == (count, 11) and y.shape == (count, 1) and x.dtype == y.dtype == torch.float32
            assert torch.equal(x[:, 1:], torch.eye(10)[[number]].expand(count, -1)) and x[:, 0].abs().max() <= 5
            assert np.allclose(y[:, 0], amplitude * np.sin(x[:, 0].double() + phase), atol=1e-5)


def test_what_arrives_is_a_function_of_the_seed():
    stream, same, other = SineStream(seed=1), SineStream(seed=1), SineStream(seed=2)
    assert all(torch.equal(one, two) for one, two in zip(stream.batch(57), same.batch(57), strict=True))
    assert not torch.equal(stream.batch(57).y, other.batch(57).y) and stream.manifest_hash != other.manifest_hash
    assert SineStream(seed=1, num_waves=4).manifest_hash != stream.manifest_hash
    assert torch.equal(stream.beside(2)[1].batch(57).y, other.batch(57).y)  # the second of several goes with the next seed


def table(folder: Path, groups: list, rows: int = 8) -> Path:
    lines = ["name,year,a,b,target"]
    for place, group in enumerate(groups):
        lines += [f"{group},{1950 + 3 * row},{row},{place * row},{place + 2 * row}" for row in range(rows)]
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def test_each_group_of_a_table_is_an_experience(tmp_path):
    stream = TableStream(table(tmp_path, ["x", "y", "z"]), "name", ["a", "b"], "target", seed=5)
    stream.setup()
    stream.check()
    assert sorted(stream.titles) == ["x", "y", "z"] and stream.input_shape == (5,) and stream.output_size == 1
    parts = [[stream.samples(number, split) for split in ("train", "test")] for number in range(3)]
    assert [[len(part.y) for part in pair] for pair in parts] == [[6, 2]] * 3
    train = torch.cat([torch.cat([pair[0].images[:, :2], pair[0].y], 1) for pair in parts])
    assert torch.allclose(train.mean(0), torch.zeros(3), atol=1e-6) and torch.allclose(train.std(0, correction=0), torch.ones(3))
    known = {tuple(row) for row in train.tolist()}
    assert not any(tuple(row) in known for _, test in parts for row in torch.cat([test.images[:, :2], test.y], 1).tolist())
    orders = {tuple(_titles(tmp_path, seed)) for seed in range(8)}
    assert len(orders) > 1  # names have no order of their own


def _titles(folder: Path, seed: int) -> list[str]:
    stream = TableStream(folder / "table.csv", "name", "a", "target", seed=seed)
    stream.setup()
    return stream.titles


def test_decades_come_in_their_order(tmp_path):
    path = table(tmp_path, ["x", "y", "z"])
    stream = TableStream(path, "year", "a", "target", group_width=10, index_is_input=False)
    stream.setup()
    stream.check()
    assert stream.titles == ["1950", "1960", "1970"] and stream.input_shape == (1,)
    assert stream.num_train(0) == 9 and stream.num_train(2) == 2  # of 12 and of 3 rows
    first = TableStream(path, "year", "a", "target", group_width=10, num_groups=2)
    first.setup()
    assert first.titles == ["1950", "1960"] and first.input_shape == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 1.0}, "test_fraction is 1.0; give a share"),
        ({"x": []}, "--data.x and --data.y name"),
        ({"num_groups": 9}, "--data.num_groups is 9, and .* has 3"),
        ({"group": "nothing"}, "has no column nothing"),
        ({"group_width": 10}, "--data.group_width 10 needs numbers.* has 'x' in the column name"),
        ({"group": "year"}, None),
        ({"x": "[a]"}, None),
        ({"group_width": 0}, "group_width is 0; give a number above 0"),
    ],
)
def test_wrong_options_of_a_table(options: dict, message: str | None, tmp_path):
    given = {"group": "name", "x": "a", "y": "target"} | options

    def begin() -> None:
        stream = TableStream(table(tmp_path, ["x", "y", "z"]), **given)
        stream.setup()
        stream.check()

    if message is None:
        return begin()
    with pytest.raises(InputError, match=message):
        begin()


def test_a_group_of_one_row_is_refused(tmp_path):
    stream = TableStream(table(tmp_path, ["x", "y"], rows=1), "name", "a", "target")
    stream.setup()
    with pytest.raises(InputError, match=r"has one row of '[xy]', of which none can be held out.*--data.group name"):
        stream.check()
