"""Learners of streams: the checkpoint of a stream goes on, new classes grow the head."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.streams import METHODS, Patterns

import app
from app.deploy.living_learner import LivingLearner
from app.errors import InputError

ADAM = ["optimizer=Adam", "optimizer.lr=0.01"]
OPTIONS = {"LaMAML": ["glances=2"], "GDumb": [*ADAM, "epochs=20"], "RanPAC": ["projection_size=50"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Trains a method on so many experiences, once."""
    return cache(lambda *wanted: trained(tmp_path_factory.mktemp("run"), *wanted))


def trained(folder: Path, method: str, experiences: int, *more: str) -> str:
    options = [f"--model.method.{option}" for option in OPTIONS.get(method, ADAM)]
    named = [f"--model.method={METHODS[method].__module__}.{method}", *options]
    network = ["--model.backbone=MLP", "--model.backbone.hidden_sizes=[16,16]"]
    data = ["--data=helpers.streams.Patterns", f"--data.num_experiences={experiences}", "--data.passes=8", *more]
    outcome = train("fit", *QUIET, "--model=ContinualLearner", *data, *named, *network, f"--trainer.default_root_dir={folder}")
    assert outcome.status == 0, outcome.err
    return str(folder / "checkpoints" / "last.ckpt")


def part(number: int, split: str):
    """Pictures of an experience of the stream of three, and their names."""
    stream = Patterns(num_experiences=3)
    images, y = stream.read(number, split)
    return torch.from_numpy(images), [str(label) for label in y.tolist()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ER", "LaMAML", "EWC", "LwF", "GDumb", "RanPAC"])
def test_it_goes_on(method, checkpoint, tmp_path):
    learner = app.load(checkpoint(method, 2), device="cpu").learner()
    assert learner.classes == ["0", "1", "2", "3"] and learner.kept.kind == "stream"
    before = learner.score(*part(0, "test"))
    other = learner.predictor.learner()
    for one in (learner, other):  # each goes on by itself, and alike
        one.learn(*part(2, "train"))
    queries, _ = part(2, "test")
    assert torch.equal(learner.predict(queries).probabilities, other.predict(queries).probabilities)
    assert learner.classes == ["0", "1", "2", "3", "4", "5"]
    assert learner.score(*part(2, "test")) >= 0.5  # of 6 classes
    learner.save(tmp_path / "it.learner")
    again = app.load_learner(str(tmp_path / "it.learner"), device="cpu")
    assert torch.equal(again.predict(queries).probabilities, learner.predict(queries).probabilities)
    for one in (learner, again):
        one.learn(*part(1, "train"))
    assert torch.equal(again.predict(queries).probabilities, learner.predict(queries).probabilities)
    if method in ("ER", "GDumb"):  # which replay
        assert learner.score(*part(0, "test")) >= before - 0.3


@pytest.mark.slow
def test_one_stream_and_a_learner_that_goes_on_are_one(checkpoint):
    """The outputs are there from the start where the stream was stopped: then nothing is grown, and nothing differs."""
    whole = app.load(checkpoint("ER", 3), device="cpu").learner()
    stopped = checkpoint("ER", 3, "--trainer.max_steps=64")
    learner = app.load(stopped, device="cpu").learner()
    assert learner.classes == ["0", "1", "2", "3"]
    images, names = part(2, "train")
    order = sorted(range(len(names)), key=lambda row: names[row])
    learner.learn(images[order], [names[row] for row in order])
    for number in range(3):
        queries, _ = part(number, "test")
        found, expected = (one.predict(queries).probabilities for one in (learner, whole))
        assert (found - expected).abs().max() < 0.5


@pytest.mark.slow
def test_bad_input(checkpoint):
    path = checkpoint("ER", 2)
    learner: LivingLearner = app.load(path, device="cpu").learner()
    images, names = part(0, "train")
    with pytest.raises(InputError, match="cannot take back"):
        learner.forget("0")
    with pytest.raises(InputError, match="takes in no other weights"):
        learner.merge(app.load(path, device="cpu").learner())
    with pytest.raises(InputError, match="begin a learner"):
        app.load(path, device="cpu").adapt(images, names)
    with pytest.raises(InputError, match="no single example fades"):
        app.load(path, device="cpu").learner(memory=3)
    joint = app.load(checkpoint("Joint", 2), device="cpu").learner()
    before = joint.predict(images).probabilities
    with pytest.raises(InputError, match="which no learner keeps"):
        joint.learn(images, names)
    assert torch.equal(joint.predict(images).probabilities, before) and joint.kept.counts["0"] == 0


@pytest.mark.slow
def test_export(checkpoint, tmp_path):
    learner = app.load(checkpoint("ER", 2), device="cpu").learner()
    learner.learn(*part(2, "train"))
    queries, _ = part(2, "test")
    learner.adapted().export(str(tmp_path / "it.pt2"), queries)
    found = torch.export.load(tmp_path / "it.pt2").module()(queries)
    assert np.allclose(found, learner.predict(queries).probabilities, atol=1e-5)
