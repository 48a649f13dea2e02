"""What a validation or a test that is under way has found so far."""

from typing import Any

import torch
from torch import Tensor

from app.scores.calibration import Calibration
from app.scores.conformal import ProbabilityScores
from app.scores.episode_scores import EpisodeScores
from app.scores.temperature import tempered

# Scores by name, each of shape (tasks,), at each stage of the adaptation, by its number.
StageScores = dict[int, dict[str, Tensor]]


class Tally:
    """The scores of the episodes of one validation or test, and how much its probabilities are worth.

    Args:
        split: val or test.
        device: of the scores.
        num_classes: of a task whose probabilities are judged as well; null for none.
        nonconformity: of validation queries, by which sets of classes are made; null for no sets.
        temperature: by which deployment corrects the probabilities; null for none.

    Attributes:
        names: of the scores.
        stages: numbers of the stages of the adaptation that are scored.
        calibration: of the probabilities, or null.
        probabilities: what they are worth besides.
    """

    def __init__(
        self,
        split: str,
        device: torch.device,
        num_classes: int | None = None,
        nonconformity: Tensor | None = None,
        temperature: float | None = None,
    ):
        self.split = split
        self.names: list[str] = []
        self.stages: list[int] = []
        self.calibration = Calibration(num_classes).to(device) if num_classes else None
        self.temperature = temperature
        self._deployed = Calibration(num_classes).to(device) if num_classes and temperature else None
        self.probabilities = ProbabilityScores(nonconformity).to(device)
        self._rows = EpisodeScores().to(device)

    @property
    def num_episodes(self) -> int:
        """Episodes that this process has scored."""
        return self._rows.num_episodes

    def judge(self, probabilities: Tensor, labels: Tensor, alone: Tensor | None) -> None:
        """Adds the queries of a stack of tasks, whose probabilities have the shape (tasks, queries, classes).

        Args:
            probabilities: of the queries.
            labels: of shape (tasks, queries).
            alone: those of the first tasks, each query answered by itself; null where all are.
        """
        probabilities, labels = probabilities.flatten(0, 1), labels.flatten()
        alone = None if alone is None else alone.flatten(0, 1)
        self.calibration.update(probabilities, labels)
        self.probabilities.update(probabilities, labels, alone)
        said = probabilities if alone is None else alone
        if self._deployed is not None:
            self._deployed.update(tempered(said, self.temperature), labels[: len(said)])

    def worth(self) -> dict[str, Any]:
        """What the probabilities are worth, of all processes; `deployed` is of what deployment makes of them."""
        found = self.calibration.compute() | self.probabilities.compute()
        if self._deployed is not None:
            deployed = self._deployed.compute()
            found["deployed"] = {"temperature": self.temperature} | {name: deployed[name] for name in ("error", "num_queries")}
        return found

    def add(self, first_episode: int, scores: StageScores) -> None:
        """Adds the scores of a stack of tasks whose first is the episode of that number."""
        self.stages = list(scores)
        self.names = list(scores[self.stages[0]])
        at_stages = [torch.stack([score.to(torch.float64) for score in found.values()], -1) for found in scores.values()]
        rows = torch.stack(at_stages, 1)
        numbers = torch.arange(first_episode, first_episode + len(rows)).to(rows)
        self._rows.update(torch.cat([numbers[:, None, None].expand(-1, rows.shape[1], 1), rows], -1))

    def rows(self) -> Tensor:
        """The number of each episode and its scores, of all processes, of shape (episodes, stages, 1 + scores)."""
        return self._rows.compute()
