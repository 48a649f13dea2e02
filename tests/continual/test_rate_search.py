"""The step size of a method, chosen on what a stream holds out of its training samples."""

import json

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.small import trainer
from helpers.streams import Patterns, method_for

from app.continual.held_out_stream import HeldOutStream
from app.continual.learner import ContinualLearner
from app.continual.methods.er import ER
from app.continual.rate_search import find_rate, in_words
from app.errors import InputError

RUN = [
    "fit",
    *QUIET,
    "--data=helpers.streams.Patterns",
    "--model.method=ER",
    "--model.backbone=MLP",
    "--model.backbone.hidden_sizes=[8,8]",
]


def test_what_is_held_out_is_of_every_class_and_no_test_sample():
    whole = Patterns(train=22)
    whole.sizes["test"] = None  # asked for, they would fail
    held = HeldOutStream(whole)
    for number, experience in enumerate(held.experiences):
        train, test = (held.samples(number, split) for split in ("train", "test"))
        assert sorted(test.y.tolist()) == [label for label in experience.classes for _ in range(2)]  # of 11 each
        both = torch.cat([train.images, test.images]).flatten(1).numpy()
        expected = whole.samples(number, "train").images.flatten(1).numpy()
        assert np.array_equal(np.unique(both, axis=0), np.unique(expected, axis=0)) and len(both) == len(expected)
    assert held.own_num_steps == sum(-(-len(held.samples(n, "train").y) // held.batch_size) for n in range(3))


def test_a_class_with_one_sample_cannot_be_held_out():
    with pytest.raises(InputError, match="has a class with one"):
        HeldOutStream(Patterns(train=3)).num_train(0)


@pytest.mark.parametrize(("name", "options"), [("ER", {}), ("GDumb", {"memory": 100, "epochs": 40})])
def test_the_best_rate_is_taken(name, options):
    def build(stream):
        return method_for(name, stream, **options)

    found = find_rate(build, Patterns(train=40), (1e-7, 0.1), "class", torch.zeros(()))
    assert found["chosen"] == 0.1 and found["accuracy"][0.1] > found["accuracy"][1e-7]
    assert "learning rate 0.1: " in in_words(found) and "it is the largest of --model.rates" in in_words(found)


def test_the_rate_of_look_ahead_is_that_of_its_fast_weights():
    method = method_for("LaMAML", Patterns())
    method.take_rate(0.02)
    assert method.alpha == 0.02 and all((rate == 0.02).all() for rate in method.rates)


def test_a_method_without_steps_has_no_rate():
    with pytest.raises(InputError, match="NearestClassMean takes no steps"):
        find_rate(lambda stream: method_for("NearestClassMean", stream), Patterns(), (0.1,), "class", torch.zeros(()))


def test_the_run_is_that_of_the_rate_alone():
    """The search leaves no trace in the weights, the draws and the order."""

    def learned(rates: tuple[float, ...] | None, lr: float) -> dict:
        torch.manual_seed(0)
        stream = Patterns()
        optimizer = lambda params: torch.optim.SGD(params, lr=lr)  # noqa: E731
        learner = ContinualLearner(stream, lambda net, data: ER(net, data, memory=9, optimizer=optimizer), rates=rates)
        trainer(max_steps=-1).fit(learner, datamodule=stream)
        return learner.state_dict()

    found, expected = learned((0.02,), 0.5), learned(None, 0.02)
    assert all(torch.equal(found[name].nan_to_num(-1), expected[name].nan_to_num(-1)) for name in expected)


def test_a_resumed_run_keeps_the_rate_without_another_search(tmp_path, monkeypatch):
    method = ["--model.method=MER", "--model.method.num_batches=1"]  # its rate is in no optimiser
    run = [*RUN, *method, "--model.rates=0.01,0.1", "--trainer.callbacks+=LastCheckpoint"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    told = train(*run, f"--trainer.default_root_dir={whole}")
    assert told.status == 0 and "of a quarter of the training samples" in told.out, told.err
    assert json.loads((whole / "results.json").read_text())["rate"]["chosen"] in (0.01, 0.1)
    assert train(*run, f"--trainer.default_root_dir={broken}", "--trainer.max_steps=5").status == 0
    monkeypatch.setattr("app.continual.learner.find_rate", None)
    assert train(*run, f"--trainer.default_root_dir={broken}", "--ckpt_path=last").status == 0
    found, expected = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=False) for one in (broken, whole))
    assert all(torch.equal(found["state_dict"][name], tensor) for name, tensor in expected["state_dict"].items())
    assert found["rate"]["chosen"] == expected["rate"]["chosen"]


def test_a_rate_that_is_none(tmp_path):
    run = train(*RUN, "--model.rates=0.1,0", f"--trainer.default_root_dir={tmp_path}")
    assert run.status == 1 and "--model.rates is " in run.err and "give numbers above 0" in run.err
