"""Numbers from short streams of glyphs on long streams of Omniglot: the table, and what the streams are."""

import json

import pytest
import torch

from benchmarks import long_streams
from benchmarks.long_streams import KIND, SHORT
from benchmarks.meta_continual_search import Deployed, Search
from datamodules.class_stream import ClassStream


@pytest.fixture
def no_learning(tmp_path, monkeypatch):
    """Short streams that find a rate of 0.3, and long ones of glyphs whose accuracy is the rate that they are learned with."""
    monkeypatch.chdir(tmp_path)

    def streams(classes, split, seed, data_dir):
        return ClassStream(num_classes=classes, train_images=8, test_images=4, seed=seed)

    def learn(data, method, count, scenario):
        rate, kept = method.keywords["optimizer"].keywords["lr"], method.keywords["memory"]
        return Deployed([rate + 0.01 * order for order in range(count)], kept, 10, 5, 0.1)

    def found(kind, candidate, *rest):
        numbers = {"lr": 0.3, "replay_weight": 2.0}
        return Search(candidate.made(**numbers), numbers, 7.0, 80)

    for name, fake in (("streams", streams), ("learn", learn), ("by_gradients", found)):
        monkeypatch.setattr(long_streams, name, fake)


def test_the_table_of_long_streams(no_learning, tmp_path, capsys):
    assert long_streams.main(["--classes", "6", "3", "--orders=2", "--memory=5", "--record"]) == 0
    rows = json.loads((tmp_path / "results" / "long_streams.json").read_text())["rows"]
    assert [row["classes"] for row in rows] == [3] * 5 + [6] * 5
    nearest, learned, lower, higher, grid = rows[:5]
    assert nearest["method"] == "nearest mean" and nearest["accuracy"][0] > 1 / 3
    assert learned["to_learned"] is None and learned["search_seconds"] == 7 and learned["memory_bytes"] == 5
    assert lower["found"] == "lr 0.1, replay_weight 2" and lower["to_learned"][0] == pytest.approx(-0.2)
    assert higher["to_learned"][0] == pytest.approx(0.6)
    assert grid["found"].startswith("lr 0.3") and grid["to_learned"] == pytest.approx([0, 0])  # the highest rate of the grid
    assert "2 unseen orders" in (tmp_path / "results" / "long_streams.json").read_text()
    assert "nearest mean" in capsys.readouterr().out


def test_short_streams_of_glyphs(tmp_path):
    data = SHORT.read(KIND, tmp_path)
    one, other = (SHORT.draw(KIND, data, number) for number in (0, 1))
    assert one.support_y.tolist() == [label for label in range(5) for _ in range(8)]
    assert one.query_y.tolist() == [label for label in range(5) for _ in range(4)]
    assert not torch.equal(one.support_x, other.support_x)


def test_what_a_long_stream_cannot_be(capsys):
    for option, message in {
        "--classes=1": "--classes is 1; give at least 2",
        "--orders=0": "--orders is 0; give at least 1",
    }.items():
        with pytest.raises(SystemExit):
            long_streams.main([option])
        assert message in capsys.readouterr().err
