"""A learner that is not for the data is refused by what both classes say of themselves."""

import pytest
from helpers.small import Blots
from helpers.streams import Patterns

from app.algorithms.metric_based.baseline import Baseline
from app.algorithms.metric_based.protonet import ProtoNet
from app.algorithms.model_based.cnp import CNP
from app.algorithms.optimisation_based.maml import MAML
from app.continual.learner import ContinualLearner
from app.continual.meta_trained.gemcl import GeMCL
from app.errors import InputError
from app.learners.suitability import check_suits
from datamodules.sinusoid import Sinusoid
from datamodules.trajectories import Trajectories

SUITED = [(MAML, Blots), (MAML, Sinusoid), (CNP, Sinusoid), (GeMCL, Trajectories), (ContinualLearner, Patterns)]
REFUSED = {
    "classes": (CNP, Blots, r"--model CNP is for regression, and the tasks of --data are classification; .*MAML, .*ProtoNet"),
    "functions": (Baseline, Sinusoid, r"--model Baseline is for classification, and the tasks of --data are regression; .*NP"),
    "streams of classes": (ProtoNet, Trajectories, r"--data Trajectories tests on streams .* --model ProtoNet is .*GeMCL, .*OML"),
    "a stream": (
        MAML,
        Patterns,
        "--data Patterns is a stream, and --model MAML learns from tasks; give .*ContinualLearner",
    ),
    "no stream": (ContinualLearner, Sinusoid, "--model ContinualLearner needs a stream, and --data is Sinusoid; choose a stream"),
}


@pytest.mark.parametrize(("learner", "data"), SUITED)
def test_what_suits(learner, data):
    check_suits(learner, data)


@pytest.mark.parametrize(("learner", "data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_suit(learner, data, message):
    with pytest.raises(InputError, match=message) as refused:
        check_suits(learner, data)
    named = str(refused.value).partition("choose one of ")[2]
    assert learner.__name__ not in named.split(", ")
    if data is Trajectories:
        assert "MAML" not in named.split(", ")
