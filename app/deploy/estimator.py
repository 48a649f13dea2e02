"""A checkpoint as an estimator of scikit-learn's kind, for pipelines that take one."""

from typing import Any, Self

import numpy as np

from app.deploy.checkpoint import restored
from app.errors import InputError


class FewShotClassifier:
    """Learns classes from a few examples each, as scikit-learn's classifiers are asked to; scikit-learn itself is not needed.

    `fit` begins anew, `partial_fit` goes on: `learner_` is the learner that lives behind both.

    Args:
        ckpt_path: of a run of this application that classifies.
        device: where to compute, null for a GPU where there is one.
        memory: as of `Predictor.learner`.
        keep: as of `Predictor.learner`.

    Attributes:
        classes_: names of the classes, in the order of the columns of `predict_proba`.
        learner_: what was learned; `learner_.save(path)` keeps it.
    """

    _estimator_type = "classifier"

    def __init__(self, ckpt_path: str, device: str | None = None, memory: int | None = None, keep: str = "all"):
        self.ckpt_path, self.device, self.memory, self.keep = ckpt_path, device, memory, keep

    def fit(self, X: Any, y: Any) -> Self:
        """Learns these examples alone; `X` and `y` as of `Predictor.adapt`."""
        self.learner_ = restored(self.ckpt_path, self.device).learner(self.memory, self.keep)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Learns more examples, of new classes too; `classes` need not be told."""
        if not hasattr(self, "learner_"):
            return self.fit(X, y)
        self.learner_.learn(X, y)
        return self

    @property
    def classes_(self) -> np.ndarray:
        return np.array(self._fitted.classes)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each query."""
        return np.array(self._fitted.predict(X).labels)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, of shape (queries, classes)."""
        return self._fitted.predict(X).probabilities.double().numpy()

    def score(self, X: Any, y: Any) -> float:
        """The accuracy."""
        return self._fitted.score(X, y)

    @property
    def _fitted(self) -> Any:
        if not hasattr(self, "learner_"):
            raise InputError("the classifier has learned nothing yet; call fit first")
        return self.learner_

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments, by which scikit-learn makes copies."""
        return {name: getattr(self, name) for name in ("ckpt_path", "device", "memory", "keep")}

    def set_params(self, **params: Any) -> Self:
        """Changes arguments; they count from the next `fit` on."""
        if unknown := params.keys() - self.get_params().keys():
            raise InputError(f"{min(unknown)} is no argument of {type(self).__name__}; there are {', '.join(self.get_params())}")
        for name, value in params.items():
            setattr(self, name, value)
        return self
