"""A checkpoint as an estimator of scikit-learn's kind, for pipelines that take one."""

from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from app.deploy.checkpoint import restored
from app.deploy.living_learner import LivingLearner
from app.errors import InputError


class FewShotClassifier:
    """Learns classes from a few examples each, as scikit-learn's classifiers are asked to; scikit-learn itself is not needed.

    `fit` begins anew, `partial_fit` goes on: `learner_` is the learner that lives behind both. It may be cloned and pickled.

    Args:
        ckpt_path: of a run of this application that classifies.
        device: where to compute, null for a GPU where there is one.
        memory: as of `Predictor.learner`.
        keep: as of `Predictor.learner`.
        seed: as of `Predictor.learner`.
        window: as of `Predictor.learner`.

    Attributes:
        classes_: names of the classes, in the order of the columns of `predict_proba`.
        learner_: what was learned; `learner_.save(path)` keeps it.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        ckpt_path: str,
        device: str | None = None,
        memory: int | None = None,
        keep: str = "all",
        seed: int = 0,
        window: int | None = None,
    ):
        self.ckpt_path, self.device = ckpt_path, device
        self.memory, self.keep, self.seed, self.window = memory, keep, seed, window

    def fit(self, X: Any, y: Any) -> Self:
        """Learns these examples alone; `X` and `y` as of `Predictor.adapt`."""
        learner = restored(self.ckpt_path, self.device).learner(self.memory, self.keep, self.seed, self.window)
        if not learner.is_classification:
            raise InputError(f"{self.ckpt_path} is of a regression; give a checkpoint that classifies")
        learner.learn(X, y)
        self.learner_ = learner
        return self

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
        """Probabilities, of shape (queries, classes), which sum to 1 in float64."""
        found = self._fitted.predict(X).probabilities.double().numpy()
        return found / found.sum(1, keepdims=True)

    def score(self, X: Any, y: Any) -> float:
        """The accuracy."""
        return self._fitted.score(X, y)

    @property
    def _fitted(self) -> LivingLearner:
        if not hasattr(self, "learner_"):
            raise InputError("the classifier has learned nothing yet; call fit first")
        return self.learner_

    # What scikit-learn and pickle ask

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments, by which scikit-learn makes copies."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Changes arguments; they count from the next `fit` on."""
        if unknown := params.keys() - self.get_params().keys():
            raise InputError(f"{min(unknown)} is no argument of {type(self).__name__}; there are {', '.join(self.get_params())}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        inputs = InputTags(two_d_array=True, three_d_array=True, string=True)
        return Tags("classifier", TargetTags(required=True), classifier_tags=ClassifierTags(), input_tags=inputs)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        if learner := state.pop("learner_", None):
            with TemporaryDirectory() as folder:
                learner.save(place := Path(folder, "it.learner"))
                state["learner"] = place.read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        content = state.pop("learner", None)
        vars(self).update(state)
        if content is not None:
            with TemporaryDirectory() as folder:
                (place := Path(folder, "it.learner")).write_bytes(content)
                self.learner_ = LivingLearner.load(place, self.device)
