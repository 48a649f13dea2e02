"""FewShotClassifier inside scikit-learn."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import QUIET, train
from helpers.small import Blots

from app.deploy.estimator import FewShotClassifier
from app.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("run")
    blots = [f"--data={Blots.__module__}.Blots", "--data.ways=3", "--data.queries=2", "--data.meta_batch_size=2"]
    few = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.val_episodes=2"]
    model = ["--model=ProtoNet", "--model.backbone=Conv4", "--model.backbone.width=8"]
    outcome = train("fit", *model, *blots, *few, *QUIET, f"--trainer.default_root_dir={folder}")
    assert outcome.status == 0, outcome.err
    return str(Path(folder, "checkpoints", "last.ckpt"))


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Eight pictures of each of four classes, and the names of these."""
    data = Blots(ways=4, shots=6, queries=2)
    data.setup()
    support_x, support_y, query_x, query_y = data.episode("test", 0)
    x, y = np.concatenate([support_x, query_x]), np.concatenate([support_y, query_y])
    return x, np.array([f"blot {label}" for label in y])


def test_pickled_it_is_the_same(checkpoint, pictures):
    x, y = pictures
    classifier = FewShotClassifier(checkpoint, device="cpu").fit(x[:16], y[:16])
    again = pickle.loads(pickle.dumps(classifier))
    assert (again.predict_proba(x) == classifier.predict_proba(x)).all() and again.get_params() == classifier.get_params()
    again.partial_fit(x[16:], y[16:])
    assert again.learner_.num_examples == 32 and classifier.learner_.num_examples == 16
    assert not hasattr(pickle.loads(pickle.dumps(FewShotClassifier(checkpoint))), "learner_")
    assert np.allclose(classifier.predict_proba(x).sum(1), 1, rtol=0, atol=1e-14)


@pytest.mark.slow
def test_in_scikit_learn(checkpoint, pictures):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: uv pip install scikit-learn")
    from sklearn.base import clone, is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.utils.validation import check_is_fitted

    x, y = pictures
    classifier = FewShotClassifier(checkpoint, device="cpu", window=5)
    twin = clone(classifier)
    assert is_classifier(classifier) and twin is not classifier and twin.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier)
    folds = StratifiedKFold(4)
    scores = cross_val_score(classifier, x, y, cv=folds)
    by_hand = [clone(classifier).fit(x[out], y[out]).score(x[held], y[held]) for out, held in folds.split(np.zeros(len(y)), y)]
    assert scores.tolist() == by_hand and scores.mean() > 0.5
    assert (cross_val_score(classifier, list(x), y.tolist(), cv=folds, scoring="neg_log_loss") < 0).all()
    assert cross_val_predict(classifier, x, y, cv=folds, method="predict_proba").shape == (32, 4)

    pipeline = make_pipeline(FunctionTransformer(lambda rows: rows[:, :, ::-1].copy()), classifier).fit(x, y)
    assert pipeline.classes_.tolist() == sorted(set(y)) and pipeline.score(x, y) > 0.5
    assert (pipeline.predict(x) == clone(classifier).fit(x[:, :, ::-1].copy(), y).predict(x[:, :, ::-1].copy())).all()
    search = GridSearchCV(pipeline, {"fewshotclassifier__window": [1, 6]}, cv=folds).fit(x, y)
    assert search.best_estimator_[-1].learner_.kept.window == search.best_params_["fewshotclassifier__window"]
    first, rest = y < "blot 2", y >= "blot 2"
    grown = clone(classifier).partial_fit(x[first], y[first], classes=np.unique(y)).partial_fit(x[rest], y[rest])
    check_is_fitted(grown)
    assert grown.classes_.tolist() == sorted(set(y))
    with pytest.raises(InputError, match="depth is no argument of FewShotClassifier"):
        classifier.set_params(depth=3)
