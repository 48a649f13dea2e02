"""The scores of a learner on its way through a stream, what they come to, and why some numbers have no value."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.continual import metrics
from app.continual.base.method import ContinualMethod
from app.continual.metrics import Measure


class StreamRecord(nn.Module):
    """The scores of a stream so far, accuracies or errors, as buffers: they are part of every checkpoint.

    Args:
        measure: what the scores are.
        views: ways in which the stream is scored, of class, task and domain.
        num_experiences: of the stream.
        evaluate_every: experiences between two rows of R.
        anytime_every: steps between two further evaluations, null for none.
        num_steps: of the stream.

    Attributes:
        anytime: score on each experience at the further evaluations, of shape (evaluations, experiences).
        anytime_experience: the experience in which each of them took place, -1 before it did.
        total: of each experience, the sum of its samples' scores before their labels or targets were used.
        num_samples: samples of each experience that arrived.
        seconds: that learning took.
    """

    def __init__(
        self,
        measure: Measure,
        views: tuple[str, ...],
        num_experiences: int,
        evaluate_every: int,
        anytime_every: int | None,
        num_steps: int,
    ):
        super().__init__()
        self.measure, self.views = measure, views
        self.evaluate_every, self.anytime_every = evaluate_every, anytime_every
        self.num_experiences, self.num_steps = num_experiences, num_steps
        for view in views:  # row 0 is before any training
            empty = torch.full((num_experiences + 1, num_experiences), torch.nan, dtype=torch.float64)
            self.register_buffer(f"{measure.score}_{view}", empty)
        instants = -(-num_steps // anytime_every) if anytime_every else 0
        self.register_buffer("anytime", torch.full((instants, num_experiences), torch.nan, dtype=torch.float64))
        self.register_buffer("anytime_experience", torch.full((instants,), -1, dtype=torch.int64))
        dtype = torch.int64 if measure is metrics.ACCURACY else torch.float64
        self._total = "num_correct" if measure is metrics.ACCURACY else "squared_error"  # as checkpoints have it
        self.register_buffer(self._total, torch.zeros(num_experiences, dtype=dtype))
        self.register_buffer("num_samples", torch.zeros(num_experiences, dtype=torch.int64))
        self.seconds = 0.0

    @property
    def total(self) -> Tensor:
        """See the attributes of the class."""
        return getattr(self, self._total)

    def scores(self, view: str) -> Tensor:
        """R[i, j] of that view, the score on experience j after training on 0..i, below a row from before any training."""
        return getattr(self, f"{self.measure.score}_{view}")

    @property
    def last_scored(self) -> int:
        """The experience after which the last row of R was filled, -1 for before any training, -2 for no row."""
        scored = self.scores(self.views[0]).isfinite().any(1).nonzero()
        return int(scored.max()) - 1 if len(scored) else -2

    def is_due(self, experience: int, learns_at_end: bool) -> bool:
        """Whether a row of R is filled at the end of an experience, by a method that may learn at the end of the stream alone."""
        due = (experience + 1) % self.evaluate_every == 0 and not learns_at_end
        return due or experience + 1 == self.num_experiences

    def is_instant(self, step: int, learns_at_end: bool) -> bool:
        """Whether a further evaluation follows a step."""
        if self.anytime_every is None or learns_at_end:
            return False
        return (step + 1) % self.anytime_every == 0 or step + 1 == self.num_steps

    def summary(self, method: ContinualMethod) -> dict[str, Any]:
        """All numbers of the stream so far: R, the metrics of each view or why they have no value, and what they cost.

        Args:
            method: what learned.
        """
        found: dict[str, Any] = {"views": {}}
        for view in self.views:
            before, *rows = self.scores(view).cpu().numpy()
            R = np.array(rows)
            values = metrics.summarise(R, before, view == "class", self.measure) | self._anytime_metrics(view, R)
            reasons = {name: self._why_undefined(method, name, view, R) for name in self.measure.names if name not in values}
            found["views"][view] = {"R": R, "before": before, "metrics": values, "undefined": reasons}
        total = self.total
        counts = torch.zeros_like(self.num_samples) if method.learns_at_end else self.num_samples
        found["prequential"] = float(total.sum() / counts.sum()) if counts.any() else None
        found["prequential_of"] = [a / b if b else None for a, b in zip(total.tolist(), counts.tolist(), strict=True)]
        found["cost"] = {
            "memory_bytes": method.memory_bytes,
            "samples": int(self.num_samples.sum()),
            "gradients": int(method.num_gradients),
            "seconds": round(self.seconds, 2),
        }
        return found

    def _why_undefined(self, method: ContinualMethod, name: str, view: str, R: np.ndarray) -> str:
        """Why a metric of a view has no value."""
        if len(R) == 1:
            return "there is one experience alone"
        if name == "FWT" and view == "class":
            return metrics.CLASSES_ARE_NEW
        if method.learns_at_end:
            return f"{type(method).__name__} learns at the end of the stream alone"
        if np.isnan(R[-1]).any():
            return "the stream is not over"
        if name in self.measure.anytime and self.anytime_every:
            few = f"--model.anytime_every {self.anytime_every} scores not all experiences"
            return few if view == self.views[0] else f"--model.anytime_every scores the view {self.views[0]} alone"
        return f"--model.evaluate_every {self.evaluate_every} leaves out rows of R"

    def _anytime_metrics(self, view: str, R: np.ndarray) -> dict[str, float]:
        """Of the evaluations in between, or, without them, of the rows of R."""
        if self.anytime_every:
            done = self.anytime_experience >= 0
            scores, experiences = (part[done].cpu().numpy() for part in (self.anytime, self.anytime_experience))
            return metrics.anytime(scores, experiences, self.measure) if view == self.views[0] else {}
        if np.isnan(R).any():
            return {}
        seen = np.tril(np.ones_like(R, dtype=bool))
        return metrics.anytime(np.where(seen, R, np.nan), np.arange(len(R)), self.measure)
