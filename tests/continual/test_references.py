"""The simplest learners of a stream, against plain numpy."""

import numpy as np
import pytest

from app.backbones.mlp import MLP
from app.continual.base.method import class_masks
from app.continual.references import CHANCE, OWN, RAW, references
from callbacks.stream_report import below_the_simplest
from datamodules.class_stream import ClassStream


def test_equals_numpy():
    stream = ClassStream(num_classes=4, classes_per_experience=2, train_images=6, test_images=4)
    stream.prepare_data()
    stream.setup()
    net = MLP(stream.input_shape, 4, hidden_sizes=(8,))
    found = {view: references(net, stream, class_masks(stream), view) for view in ("class", "task")}
    parts = {
        split: [[part.numpy() for part in stream.samples(number, split)] for number in range(2)] for split in ("train", "test")
    }
    images, y = (np.concatenate([part[at] for part in parts["train"]]) for at in (0, 1))
    means = np.stack([images[y == label].reshape(-1, 784).astype(float).mean(0) for label in range(4)])
    for view, labels in (("class", [range(4)] * 2), ("task", [(0, 1), (2, 3)])):
        shares = []
        for (test_images, test_y), own in zip(parts["test"], labels, strict=True):
            distances = ((test_images.reshape(-1, 1, 784).astype(float) - means[list(own)]) ** 2).sum(-1)
            shares.append(np.mean(np.array(own)[distances.argmin(1)] == test_y))
        assert found[view][RAW] == pytest.approx(np.mean(shares))
        assert 0 <= found[view][OWN] <= 1
    assert (found["class"][CHANCE], found["task"][CHANCE]) == (0.25, 0.5)


def test_it_is_told_where_a_method_is_of_no_use():
    found = {"class": {CHANCE: 0.1, RAW: 0.4, OWN: 0.5}}

    def told(accuracy):
        return below_the_simplest({"method": "ER", "references": found, "views": {"class": {"ACC": {"mean": accuracy}}}})

    assert told(0.5) == [] and told(None) == []  # a nearest mean of the features is as good as itself
    assert "ER ends at 45.00 %" in told(0.45)[0] and "its features, 50.00 %" in told(0.45)[0]
    found["class"][OWN] = 0.2
    assert told(0.41) == [] and "no better than the nearest mean of raw pixels, 40.00 %" in told(0.4)[0]
