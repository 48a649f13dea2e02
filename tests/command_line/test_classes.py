"""Classes by their short names."""

from collections.abc import Callable, Iterable
from typing import Optional

import pytest
from torch.nn import Module
from torch.optim import SGD, Optimizer

import app.command_line.cli  # noqa: F401, which imports all that has a name
from app.backbones import MLP
from app.command_line import classes
from app.command_line.classes import find_class, full_name, is_base
from app.continual.base.from_scratch import FromScratch
from app.continual.base.method import ContinualMethod
from app.continual.methods.er import ER
from app.errors import UsageError
from app.learners.episodic_learner import EpisodicLearner
from app.learners.learner import Learner
from datamodules.base.episodic import EpisodicDataModule

BACKBONE = Optional[Callable[[tuple[int, ...], int | None], Module]]  # noqa: UP045


def test_a_short_name_is_that_of_ours():
    """torchvision has an MLP, too."""
    assert find_class("MLP", BACKBONE, "model.backbone") == ("app.backbones.MLP", MLP)
    assert find_class("ER", Callable[[Module], ContinualMethod], "model.method") == ("app.continual.methods.er.ER", ER)
    assert find_class("SGD", Callable[[Iterable], Optimizer], "model.optimizer") == ("torch.optim.SGD", SGD)


def test_a_full_name_is_imported():
    assert find_class("app.continual.methods.er.ER", ContinualMethod, "model.method")[1] is ER
    assert full_name(SGD) == "torch.optim.SGD" and full_name(type("Made", (SGD,), {})) is None


def test_a_class_of_ours_is_found_where_it_stands_today():
    """A config of last year names the file in which it stood."""
    assert find_class("app.streams.er.ER", ContinualMethod, "model.method") == ("app.continual.methods.er.ER", ER)
    for name in ("elsewhere.er.ER", "app.streams.er.Nobody"):
        with pytest.raises(UsageError, match=f"unknown --model.method {name}"):
            find_class(name, ContinualMethod, "model.method")


def test_what_only_others_are_made_of():
    assert all(map(is_base, (Learner, EpisodicLearner, FromScratch))) and not is_base(ER)
    for name in ("FromScratch", "app.continual.base.from_scratch.FromScratch"):
        with pytest.raises(UsageError, match="is what others are made of; give one of AGEM, "):
            find_class(name, ContinualMethod, "model.method")


def test_what_is_still_to_be_written_is_named():
    name = "datamodules.base.regression.RegressionEpisodes"
    missing = "draw, input_shape, manifest_hash, output_size"
    with pytest.raises(UsageError, match=f"{name} is not complete, it does not say {missing}; give one of .*Sinusoid"):
        find_class(name, EpisodicDataModule, "data")


def test_a_name_of_two_classes(monkeypatch):
    monkeypatch.setattr(classes, "known_classes", lambda base: {"Twin": ["a.Twin", "b.Twin"]})
    with pytest.raises(UsageError, match=r"--model\.backbone Twin is ambiguous; give one of a\.Twin, b\.Twin"):
        find_class("Twin", BACKBONE, "model.backbone")
