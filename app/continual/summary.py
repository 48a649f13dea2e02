"""What the scores of a stream come to, and why some have no value."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from app.continual import metrics

if TYPE_CHECKING:
    from app.continual.learner import ContinualLearner


def summary(learner: "ContinualLearner") -> dict[str, Any]:
    """All numbers of the stream so far: R, the metrics of each view or why they have no value, and what they cost."""
    method, found = learner.method, {"views": {}}
    for view in learner.views:
        before, *rows = getattr(learner, f"accuracy_{view}").cpu().numpy()
        R = np.array(rows)
        values = metrics.summarise(R, before, classes_are_new=view == "class") | _anytime_metrics(learner, view, R)
        reasons = {name: _why_undefined(learner, name, view, R) for name in metrics.NAMES if name not in values}
        found["views"][view] = {"R": R, "before": before, "metrics": values, "undefined": reasons}
    correct = learner.num_correct
    counts = torch.zeros_like(learner.num_samples) if method.learns_at_end else learner.num_samples
    found["prequential"] = float(correct.sum() / counts.sum()) if counts.any() else None
    found["prequential_of"] = [a / b if b else None for a, b in zip(correct.tolist(), counts.tolist(), strict=True)]
    found["cost"] = {
        "memory_bytes": method.memory_bytes,
        "samples": int(learner.num_samples.sum()),
        "gradients": int(method.num_gradients),
        "seconds": round(learner.seconds, 2),
    }
    return found


def _why_undefined(learner: "ContinualLearner", name: str, view: str, R: np.ndarray) -> str:
    """Why a metric of a view has no value."""
    if len(R) == 1:
        return "there is one experience alone"
    if name == "FWT" and view == "class":
        return metrics.CLASSES_ARE_NEW
    if learner.method.learns_at_end:
        return f"{type(learner.method).__name__} learns at the end of the stream alone"
    if np.isnan(R[-1]).any():
        return "the stream is not over"
    if name in metrics.ANYTIME and learner.anytime_every:
        few = f"--model.anytime_every {learner.anytime_every} scores not all experiences"
        return few if view == learner.views[0] else f"--model.anytime_every scores the view {learner.views[0]} alone"
    return f"--model.evaluate_every {learner.evaluate_every} leaves out rows of R"


def _anytime_metrics(learner: "ContinualLearner", view: str, R: np.ndarray) -> dict[str, float]:
    """Of the evaluations in between, or, without them, of the rows of R."""
    if learner.anytime_every:
        done = learner.anytime_experience >= 0
        accuracies, experiences = learner.anytime[done], learner.anytime_experience[done]
        return metrics.anytime(accuracies.cpu().numpy(), experiences.cpu().numpy()) if view == learner.views[0] else {}
    if np.isnan(R).any():
        return {}
    seen = np.tril(np.ones_like(R, dtype=bool))
    return metrics.anytime(np.where(seen, R, np.nan), np.arange(len(R)))
