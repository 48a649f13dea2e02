"""What becomes of episodes, whatever the method: their numbers and noise, and what validation and test make of them."""

from abc import abstractmethod
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from app.episode import Episode
from app.inner_loop.params import Params
from app.inner_loop.task_stack import Stacking, stacking
from app.learners.learner import Learner
from app.lightning_internals import attached_trainer
from app.scores.calibration import Calibration
from app.scores.episode_scores import EpisodeScores
from app.scores.evaluation import logged, summarise
from app.scores.losses import accuracy, mse, widened

Metrics = dict[str, Tensor]
OUTPUTS = "outputs"  # of the queries, among the scores
FIRST_STAGES = 10  # of an adaptation, each scored in `test`: papers print no more


class EpisodicLearner(Learner):
    """Base of the meta-algorithms: a subclass says how the tasks of a batch are scored.

    Attributes:
        task_type: classification or regression.
        output_size: ways, or dimensions of the target.
        stacking: as a constructor's.
        evaluation: what the last validation or test found, as `results.json` has it.
        stages: numbers of the stages of the adaptation that were scored.
        scores_first_stages: whether all of the first are to be, as in `test`.
    """

    task_type: str
    output_size: int
    stacking: Stacking | None

    def __init__(self):
        super().__init__()
        self._scores = EpisodeScores()
        self._score_names: list[str] = []
        self._calibration: Calibration | None = None
        self._first_episode = 0
        self.evaluation: dict[str, Any] = {}
        self.stages: list[int] = []
        self.scores_first_stages = False

    @abstractmethod
    def chunks(self, batch: Episode) -> Iterator[Episode]:
        """The batch in pieces that fit into memory, with `_first_episode` at the first task of each."""

    @abstractmethod
    def scores(self, params: Params, batch: Episode) -> Metrics:
        """Scores and loss of the query sets of a stack of tasks, each of shape (tasks, stages); with OUTPUTS or without."""

    @abstractmethod
    def query_outputs(self, params: Params, batch: Episode) -> Tensor:
        """Outputs of the queries after the adaptation, of shape (tasks, queries, outputs)."""

    # Episodes

    def as_dtype(self, batch: Episode) -> Episode:
        """The batch with inputs and regression targets in the parameters' dtype."""
        dtype = next(self.parameters()).dtype
        return Episode(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in batch))

    def generators(self, num_tasks: int) -> Iterator[torch.Generator]:
        """A source of random numbers for each task of the chunk, of which the run's seed and the task's number alone decide.

        Noise drawn from them, outside vmap, depends neither on chunks nor on the number of devices.
        """
        split = "train" if self.training else "evaluation"
        trainer = attached_trainer(self)
        seed = trainer.datamodule.seed if trainer and trainer.datamodule else 0
        for episode in range(self._first_episode, self._first_episode + num_tasks):
            digest = sha256(f"{seed}:{split}:{episode}".encode()).digest()
            yield torch.Generator(self.device).manual_seed(int.from_bytes(digest[:6], "big"))

    def _count_episodes(self, batch: Episode) -> None:
        """Sets the number of the first task of this process's batch."""
        rank, world_size, data = self.trainer.global_rank, self.trainer.world_size, self.trainer.datamodule
        if self.training:
            self._first_episode = data.cursor * data.meta_batch_size + rank * len(batch.support_x)
        else:
            split = "test" if self.trainer.testing else "val"
            self._first_episode = data.num_episodes[split] * rank // world_size + self._scores.num_episodes

    # What is scored

    @property
    def score_name(self) -> str:
        """The number that people read: accuracy, or mse in regression."""
        return "accuracy" if self.task_type == "classification" else "mse"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (accuracy if self.task_type == "classification" else mse)(outputs, targets)

    @property
    def monitor(self) -> tuple[str, str]:
        return f"val/{self.score_name}", "max" if self.task_type == "classification" else "min"

    def probabilities(self, outputs: Tensor) -> Tensor:
        """What outputs of shape (..., ways) give each class, summing to 1."""
        return widened(outputs).softmax(-1)

    def scored(self, stages: Iterator[Any]) -> Iterator[Any]:
        """Those of the stages that are to be scored; leaves their numbers in `self.stages`.

        The first, the last and those whose number is a power of two; `test` all of the first ten, too.
        """
        self.stages = []
        stage, following = 0, next(stages)
        while following is not None:
            adapted, following = following, next(stages, None)
            is_first = self.scores_first_stages and stage <= FIRST_STAGES
            if is_first or stage & (stage - 1) == 0 or following is None:
                self.stages.append(stage)
                yield adapted
            stage += 1

    # Validation and test

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        self._evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def on_test_epoch_start(self) -> None:
        self._calibration = Calibration(self.output_size).to(self.device) if self.task_type == "classification" else None

    def test_step(self, batch: Episode, batch_idx: int) -> dict[str, Any]:
        """The number of the batch's first episode, and the class predicted for each query, of shape (tasks, queries), or null."""
        predicted = self._evaluation_step(batch, scores_first_stages=True)
        return {"first_episode": self._first_episode, "predicted": predicted}

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def _evaluation_step(self, batch: Episode, scores_first_stages: bool = False) -> Tensor | None:
        self.scores_first_stages = scores_first_stages
        params = dict(self.named_parameters())
        self._count_episodes(batch)
        # A copy that was not made in inference mode, whose tensors the inner loop could not differentiate.
        with torch.inference_mode(False), torch.no_grad(), stacking(self.stacking):
            return self._score(params, self.as_dtype(Episode(*(tensor.clone() for tensor in batch))))

    def _score(self, params: Params, batch: Episode) -> Tensor | None:
        predicted: list[Tensor] = []
        for chunk in self.chunks(batch):
            scores = self.scores(params, chunk)
            outputs = scores.pop(OUTPUTS, None)
            if self._calibration is not None:
                if outputs is None:
                    outputs = self.query_outputs(params, chunk)
                self._calibration.update(self.probabilities(outputs).flatten(0, 1), chunk.query_y.flatten())
                predicted.append(outputs.argmax(-1))
            self._score_names = list(scores)
            columns = [score.to(torch.float64) for score in scores.values()]
            numbers = torch.arange(self._first_episode, self._first_episode + len(chunk.query_x)).to(columns[0])
            self._scores.update(torch.stack([numbers[:, None].expand_as(columns[0]), *columns], -1))
        return torch.cat(predicted) if predicted else None

    def _finish_evaluation(self, split: str) -> None:
        rows = self.gathered(self._scores.compute())
        self._scores.reset()
        with_references = split == "test" and self.trainer.is_global_zero
        summary = summarise(rows, self._score_names, self.trainer.datamodule, split, with_references)
        self.evaluation = {"split": split, "inner_steps": self.stages, **summary}
        if self._calibration is not None:
            self.evaluation["calibration"] = self._calibration.compute()
            self.log(f"{split}/calibration_error", rows.new_tensor(self.evaluation["calibration"]["error"]))
            self._calibration = None
        for name, value in logged(summary, split, self.score_name).items():
            self.log(name, rows.new_tensor(value))

    def gathered(self, rows: Tensor) -> Tensor:
        """The scores of all episodes as they are reported, of shape (episodes, stages, 1 + scores), under `_score_names`."""
        return rows
