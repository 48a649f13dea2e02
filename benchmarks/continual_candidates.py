"""Continual methods whose numbers are searched for."""

from functools import partial
from typing import Any, NamedTuple

from torch.optim import SGD

from app.continual.base.method import ContinualMethod, MethodCallable
from app.continual.methods.agem import AGEM
from app.continual.methods.derpp import DERPP
from app.continual.methods.er import ER
from app.continual.methods.ewc import EWC
from app.continual.methods.fine_tuning import FineTuning
from app.continual.methods.si import SI


class Candidate(NamedTuple):
    """A method.

    Attributes:
        kind: its class.
        options: that are no matter of search.
        grid: values that a person would try of each number, beside the learning rates.
        start: numbers that meta-learning begins with where its steps run off with those of the method.
    """

    kind: type[ContinualMethod]
    options: dict[str, Any]
    grid: dict[str, tuple[float, ...]]
    start: dict[str, float]

    def made(self, lr: float, **numbers: float) -> MethodCallable:
        """The method with these numbers."""
        return partial(self.kind, optimizer=partial(SGD, lr=lr), **self.options, **numbers)


METHODS = {
    "fine-tuning": Candidate(FineTuning, {}, {}, {}),
    "ER": Candidate(ER, {"memory": 200, "replay": 10}, {"replay_weight": (0.3, 1.0, 3.0)}, {}),
    "DER++": Candidate(DERPP, {"memory": 200, "replay": 10}, {"alpha": (0.2, 0.5, 1.0), "beta": (0.5, 1.0)}, {}),
    "A-GEM": Candidate(AGEM, {"memory": 200}, {}, {}),
    "EWC": Candidate(EWC, {}, {"strength": (1.0, 10.0, 100.0, 1000.0)}, {"strength": 1.0}),
    "SI": Candidate(SI, {}, {"strength": (0.1, 1.0, 10.0)}, {}),
}
