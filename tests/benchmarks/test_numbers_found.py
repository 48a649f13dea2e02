"""Numbers of continual methods that two searches find: their streams, and the table."""

import json

import numpy as np
import pytest
import torch

from app.errors import InputError
from benchmarks import meta_continual, meta_continual_search
from benchmarks.continual_candidates import METHODS
from benchmarks.meta_continual_search import STREAMS, Deployed, Search, Short, by_gradients
from datamodules.files.labelled_images import labelled
from datamodules.files.mnist import MNIST


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """Digits that differ by their brightness, each picture of a split by its first pixel."""

    def read_files(self: MNIST) -> dict[str, np.ndarray]:
        splits = {}
        for first, (split, count) in enumerate({"train": 600, "val": 300, "test": 50}.items()):
            labels = np.arange(count) % 10
            images = np.broadcast_to((20 * labels).astype(np.uint8)[:, None, None, None], (count, 1, 28, 28)).copy()
            images[:, 0, 0, 0] = first
            splits[split] = images, labels
        return labelled(splits)

    monkeypatch.setattr(MNIST, "read_files", read_files)


@pytest.mark.parametrize(("name", "labels"), [("split_mnist", 10), ("rotated_mnist", 200)])
def test_short_streams_have_orders_of_their_own(name: str, labels: int, tmp_path):
    short = Short("digits", 20, 2, 1)
    data = short.read(STREAMS[name], tmp_path)
    one, other, again = (short.draw(STREAMS[name], data, number) for number in (0, 1, 0))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.support_x, other.support_x)
    count, per = STREAMS[name].short, labels // STREAMS[name].short
    assert len(one.support_y) == 20 * count and len(one.query_y) == 40 * count
    assert (one.query_y.view(count, 40) // per).tolist() == [[at] * 40 for at in range(count)]
    assert (one.support_y.view(count, 20) // per).tolist() == [[at] * 20 for at in range(count)]  # experience by experience
    if name == "split_mnist":  # a label stands for one digit; what is held out is of the last training images
        digit = {int(label): {int(v) for v in one.support_x[one.support_y == label][:, 0, 14, 14] * 255} for label in range(10)}
        assert sorted(len(values) for values in digit.values()) == [1] * 10 and len(set.union(*digit.values())) == 10
        assert set((255 * one.support_x[:, 0, 0, 0]).int().tolist()) == {0}
        assert set((255 * one.query_x[:, 0, 0, 0]).int().tolist()) == {1}


@pytest.mark.slow
def test_the_table_of_a_method(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(meta_continual_search, "DESCENT", (0.001, 0.1))
    monkeypatch.setattr(meta_continual, "write", lambda rows, write=meta_continual.write: write(rows, tmp_path))
    sizes = {"images": 20, "orders": 2, "validation": 1, "short_images": 10, "streams": 1, "outer_steps": 1}
    options = ["--stream=split_mnist", "--methods=ER", f"--data_dir={tmp_path}", "--record"]
    assert meta_continual.main([*options, *(f"--{name}={count}" for name, count in sizes.items())]) == 0
    assert "split_mnist, 2 unseen orders" in capsys.readouterr().out
    record = json.loads((tmp_path / "meta_continual.json").read_text())
    hand, learned, initialised = record["rows"]
    assert [row["numbers"] for row in record["rows"]] == ["by hand", "meta-learned", "meta-learned, initialisation too"]
    assert hand["to_hand"] is None and hand["search_steps"] == 2 * 3 * 10  # points of the grid, each a stream of ten steps
    expected = np.mean(learned["accuracies"]) - np.mean(hand["accuracies"])
    assert learned["to_hand"][0] == pytest.approx(expected)
    assert learned["search_steps"] == 2 * 5  # two numbers
    assert initialised["search_steps"] == 2 * 2 * 5  # two outer steps, each step of them computed twice
    for key in ("memory_bytes", "gradients", "steps"):
        assert hand[key] == learned[key] == initialised[key] > 0
    meta_continual.write([{**hand, "found": "lr 7"}, {**hand, "method": "SI"}])
    rows = json.loads((tmp_path / "meta_continual.json").read_text())["rows"]
    assert [row["found"] for row in rows][::3] == ["lr 7", hand["found"]] and rows[3]["method"] == "SI"


def test_only_the_ways_that_are_asked_for(tmp_path, monkeypatch):
    searched = []
    monkeypatch.setattr(meta_continual, "by_hand", lambda *given: Search(None, {"lr": 0.1}, 1.0, 5))
    monkeypatch.setattr(
        meta_continual, "by_gradients", lambda *given: searched.append(given[3]) or Search(None, {"lr": 0.2}, 1.0, 5)
    )
    monkeypatch.setattr(meta_continual, "deploy", lambda *given: Deployed([0.5, 0.6], 0, 10, 10, 1.0))
    options = ["--stream=split_mnist", "--methods=ER", f"--data_dir={tmp_path}"]
    assert meta_continual.main([*options, "--ways", "meta-learned"]) == 0 and searched == [False]
    assert meta_continual.main(options) == 0 and searched == [False, False, True]


def test_what_cannot_be(tmp_path, capsys):
    for option, message in {"--orders=0": "--orders is 0; give at least 1", "--methods=GDumb": "invalid choice: 'GDumb'"}.items():
        with pytest.raises(SystemExit):
            meta_continual.main(["--stream=split_mnist", option])
        assert message in capsys.readouterr().err


def test_a_method_that_runs_off_is_named(tmp_path):
    candidate = METHODS["EWC"]._replace(start={"strength": 1e30})
    with pytest.raises(InputError, match=r"EWC runs off with lr 0.03, strength 1e\+30; begin with smaller ones"):
        by_gradients(STREAMS["split_mnist"], candidate, Short("digits", 10, 1, 1), False, tmp_path)
