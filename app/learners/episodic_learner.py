"""What becomes of episodes, whatever the algorithm: their numbers and noise, and what validation and test make of them."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from hashlib import sha256
from typing import Any, Self

import torch
from torch import Tensor

from app.episode import Episode
from app.inner_loop.params import Params
from app.inner_loop.task_stack import Stacking, stacking
from app.learners.inductive import answered_alone, inductive
from app.learners.learner import Learner
from app.lightning_internals import attached_trainer
from app.scores.losses import accuracy, mse, widened
from app.scores.summary import logged, summarise
from app.scores.tally import StageScores, Tally
from app.scores.temperature import NUM_TASKS, Claims
from datamodules.base.episodic import EpisodicDataModule

OF_VALIDATION = ("temperature", "nonconformity", "validated_on", "validated_groups")  # what a checkpoint keeps of it

# Scores of a stack of tasks at each stage of the adaptation, and the outputs of the queries after the last one, or null.
Evaluated = tuple[StageScores, Tensor | None]


class EpisodicLearner(Learner):
    """Base of the meta-algorithms: a subclass says how a stack of tasks is evaluated.

    The number of a task is that of its episode. Whatever draws random numbers takes `first_episode`, the number of the first
    task of the stack at hand; without it the tasks are 0, 1, 2, ...

    Attributes:
        task_type: classification or regression.
        output_size: ways, or dimensions of the target.
        train_output_size: the same in training; where it changes from step to step, that of the step at hand.
        stacking: as a constructor's.
        evaluation: what the last validation or test found, as `results.json` has it.
        transductive: whether queries of a test task depend on each other.
        temperature: chosen by the last validation, on queries that are answered one by one: what the logarithms of the
            probabilities are divided by, or the standard deviations multiplied by; null where there was none.
        nonconformity: of these queries, by which sets of classes are made; null where there are none.
        validated_on: number of classes, and of examples of each, in the tasks of these queries; null where there are none.
        validated_groups: of a regression: number of different tasks that chose the temperature; null where there were none.
    """

    task_type: str
    output_size: int
    train_output_size: int
    stacking: Stacking | None
    transductive: bool
    temperature: float | None = None
    nonconformity: Tensor | None = None
    validated_on: tuple[int, int] | None = None
    validated_groups: int | None = None

    def __init__(self):
        super().__init__()
        self.evaluation: dict[str, Any] = {}
        self._tally: Tally | None = None  # of the validation or test that is under way
        self._claims = Claims()

    @property
    def ways(self) -> int:
        """Classes of the tasks at hand."""
        return self.train_output_size if self.training else self.output_size

    @abstractmethod
    def chunks(self, batch: Episode) -> Iterator[Episode]:
        """The batch in pieces that fit into memory, in its order."""

    @abstractmethod
    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        """What `split`, val or test, tells of a stack of tasks.

        Returns:
            Scores and loss of the query sets, each of shape (tasks,), at each stage of the adaptation that is scored; and the
            outputs of the queries after the last one, as `query_outputs` gives them, or null where they would have to be
            computed for this alone.
        """

    @abstractmethod
    def query_outputs(self, params: Params, batch: Episode, first_episode: int = 0) -> Tensor:
        """Outputs of the queries after the adaptation, of shape (tasks, queries, outputs)."""

    # Episodes

    def as_dtype(self, batch: Episode) -> Episode:
        """The batch with inputs and regression targets in the parameters' dtype."""
        dtype = next(self.parameters()).dtype
        return Episode(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in batch))

    def generators(self, num_tasks: int, first_episode: int) -> Iterator[torch.Generator]:
        """A source of random numbers for each of these tasks, of which the run's seed and the task's number alone decide.

        Noise drawn from them, outside vmap, depends neither on chunks nor on the number of devices.
        """
        split = "train" if self.training else "evaluation"
        trainer = attached_trainer(self)
        seed = trainer.datamodule.seed if trainer and trainer.datamodule else 0
        for episode in range(first_episode, first_episode + num_tasks):
            digest = sha256(f"{seed}:{split}:{episode}".encode()).digest()
            yield torch.Generator(self.device).manual_seed(int.from_bytes(digest[:6], "big"))

    def first_training_episode(self, batch: Episode) -> int:
        """The number of the first task of this process's share of the batch of an outer step."""
        data = self.trainer.datamodule
        return data.cursor * data.meta_batch_size + self.trainer.global_rank * len(batch.support_x)

    # The score that people read

    @property
    def score_name(self) -> str:
        """What `score` is: accuracy, or mse in regression."""
        return "accuracy" if self.task_type == "classification" else "mse"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How good the outputs of one task are, as a number that people read."""
        return (accuracy if self.task_type == "classification" else mse)(outputs, targets)

    @property
    def monitor(self) -> tuple[str, str]:
        return f"val/{self.score_name}", "max" if self.task_type == "classification" else "min"

    def logged_scores(self, data: EpisodicDataModule) -> list[str]:
        """Found by validating on one task."""
        tally, batch = Tally("val", self.device), self.as_dtype(data.realise("val", data.draws("val", [0])))
        with self.tried_out() as learner, torch.no_grad(), stacking(self.stacking):
            tally.add(0, learner.eval().evaluate_tasks(dict(learner.named_parameters()), batch, "val")[0])
            names, rows = learner.reported(tally.names, tally.rows())
        return list(logged(summarise(rows, names, data, "val"), "val", self.score_name))

    @contextmanager
    def tried_out(self) -> Iterator[Self]:
        """A learner that is used as this one, which afterwards is as it was before."""
        state = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        modes = [own.training for own in self.modules()]
        yield copy(self)
        self.load_state_dict(state)
        for own, mode in zip(self.modules(), modes, strict=True):
            own.training = mode

    def probabilities(self, outputs: Tensor) -> Tensor:
        """What outputs of shape (..., ways) give each class, summing to 1."""
        return widened(outputs).softmax(-1)

    # Validation and test

    def on_validation_epoch_start(self) -> None:
        self._tally, self._claims = Tally("val", self.device), Claims()

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        self._evaluate_batch(batch, self._tally)

    def on_validation_epoch_end(self) -> None:
        self._report(self._tally)
        if self.trainer.state.fn == "fit":  # the checkpoint that is written next has it
            self.temperature, self.nonconformity, self.validated_groups = self._claims.corrections()
            self.validated_on = self._claims.task

    def on_test_epoch_start(self) -> None:
        ways = self.output_size if self.task_type == "classification" else None
        self._tally = Tally("test", self.device, ways, self.nonconformity, self.temperature)

    def test_step(self, batch: Episode, batch_idx: int) -> dict[str, Any]:
        """The number of the batch's first episode, and the class predicted for each query, of shape (tasks, queries), or null."""
        first_episode, predicted = self._evaluate_batch(batch, self._tally)
        return {"first_episode": first_episode, "predicted": predicted}

    def on_test_epoch_end(self) -> None:
        self._report(self._tally)

    def _evaluate_batch(self, batch: Episode, tally: Tally) -> tuple[int, Tensor | None]:
        """Adds a batch to the tally; returns the number of its first episode, and the predicted classes where they are judged."""
        first_episode = number = self.trainer.datamodule.first_evaluated(tally.split) + tally.num_episodes
        params, predicted = dict(self.named_parameters()), []
        if self.support_copies:
            batch = self._with_copies(batch, tally.split, number)
        # A copy that was not made in inference mode, whose tensors the inner loop could not differentiate.
        with torch.inference_mode(False), torch.no_grad(), stacking(self.stacking):
            for chunk in self.chunks(self.as_dtype(Episode(*(tensor.clone() for tensor in batch)))):
                scores, outputs = self.evaluate_tasks(params, chunk, tally.split, number)
                if tally.calibration is not None:
                    outputs = self.query_outputs(params, chunk, number) if outputs is None else outputs
                    tally.judge(self.probabilities(outputs), chunk.query_y, answered_alone(self, params, chunk, number))
                    predicted.append(outputs.argmax(-1))
                if tally.split == "val" and number < NUM_TASKS and not self.trainer.datamodule.has_streams:
                    self._claim(params, chunk, outputs, number)
                tally.add(number, scores)
                number += len(chunk.query_x)
        return first_episode, torch.cat(predicted) if predicted else None

    def _claim(self, params: Params, chunk: Episode, outputs: Tensor | None, number: int) -> None:
        """Notes what is said of the queries of a chunk whose first task has that number, each by itself."""
        if outputs is None or self.transductive:
            with inductive(self):
                outputs = self.query_outputs(params, chunk, number)
        outputs, true = (part[: NUM_TASKS - number].flatten(0, 1) for part in (outputs, chunk.query_y))
        if self.task_type == "classification":
            self._claims.task = (self.output_size, chunk.support_y.shape[1] // self.output_size)
            self._claims.add(self.probabilities(outputs), true)
        elif outputs.shape[-1] == 2 * true.shape[-1]:
            mean, std = outputs.chunk(2, -1)
            groups = (self.trainer.datamodule.cluster("val", number + at) for at in range(len(chunk.query_y)))
            self._claims.add(((true - mean) / std).flatten(), true[:0], groups)

    def _with_copies(self, batch: Episode, split: str, first_episode: int) -> Episode:
        copies = self.trainer.datamodule.support_copies(batch.support_x, self.support_copies, split, first_episode)
        return batch._replace(support_x=copies, support_y=batch.support_y.repeat_interleave(self.support_copies, 1))

    def _report(self, tally: Tally) -> None:
        """Sums the tally up in `evaluation`, and logs it."""
        split = tally.split
        names, rows = self.reported(tally.names, tally.rows())
        with_references = split == "test" and self.trainer.is_global_zero
        summary = summarise(rows, names, self.trainer.datamodule, split, with_references)
        self.evaluation = {"split": split, "inner_steps": tally.stages, **summary}
        if tally.calibration is not None:
            self.evaluation["calibration"] = tally.worth()
            self.log(f"{split}/calibration_error", rows.new_tensor(self.evaluation["calibration"]["error"]))
        for name, value in logged(summary, split, self.score_name).items():
            self.log(name, rows.new_tensor(value))
        self._tally = None

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {name: getattr(self, name) for name in OF_VALIDATION}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for name in OF_VALIDATION:
            setattr(self, name, checkpoint.get(name))

    def reported(self, names: list[str], rows: Tensor) -> tuple[list[str], Tensor]:
        """What is reported of the scores of all episodes: names and rows, as a tally has them."""
        return names, rows
