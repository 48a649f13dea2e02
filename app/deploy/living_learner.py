"""A learner that lives: it learns one more class next month, forgets one, takes in another learner, and loses nothing else."""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.continual.stream_algorithm import StreamAlgorithm
from app.deploy.adapted import Adapted, Classification, Regression
from app.deploy.checkpoint import predictor_of
from app.deploy.coverage import prediction_sets
from app.deploy.drift import ALARM_RATE, Drift, Example, drift_of, sketches
from app.deploy.inputs import Pictures
from app.deploy.ledger import Ledger, Lesson, digests_of
from app.deploy.memories import answering, check_mergeable, check_names, empty_memory, groups_of, new_memory, some_of
from app.deploy.names import alike, known_names, known_task
from app.deploy.predictor import Predictor, labels_of
from app.errors import InputError
from app.learners.kept import Kept, Name
from app.runs.learner_file import read_learner, revision_of, write_learner

TASK = "task"  # what a task of a regression is called where nobody names it
# Of a checkpoint, what only training goes on with.
LEFT_OUT = ("optimizer_states", "lr_schedulers", "callbacks", "loops", "replicas", "run_id", "parent_id")


class LivingLearner:
    """What a checkpoint has learned to learn, and what it has learned since.

    Args:
        predictor: the learned algorithm.
        kept: what it keeps of examples.
        ledger: what it was given.
    """

    def __init__(self, predictor: Predictor, kept: Kept, ledger: Ledger):
        self.predictor, self.kept, self.ledger = copy(predictor), kept, ledger  # its reading becomes this learner's own
        self._examples_of = sketches(self.predictor)
        self._revisions: dict[Path, str] = {}
        self._answering: dict[Name, Adapted] = {}

    @classmethod
    def begun(cls, predictor: Predictor, *memory: Any) -> "LivingLearner":
        """One that has learned nothing; arguments as of `Predictor.learner`."""
        if isinstance(predictor.algorithm, StreamAlgorithm):  # what it learns changes its weights
            predictor = copy(predictor)
            predictor.algorithm = predictor.algorithm.twin()
        return cls(predictor, new_memory(predictor, *memory), Ledger())

    # Learning

    @property
    def classes(self) -> list[Name]:
        """Names of the classes, or of the tasks of a regression, in their order."""
        return sorted(self.kept.counts)

    @property
    def num_examples(self) -> int:
        """Examples of all names that it holds."""
        return sum(self.kept.counts.values())

    def learn(self, x: Any, y: Any, task: Name = TASK, alarm_rate: float | None = ALARM_RATE) -> Lesson:
        """Learns examples of classes, known and new ones, or more rows of a task.

        Args:
            x: pictures or rows, as `Predictor.adapt` takes them.
            y: a label for each; or targets.
            task: of a regression, the name of the task that the rows are of.
            alarm_rate: the chance of a false alarm when they are compared with what was learned; null for no comparison.

        Raises:
            InputError: the examples do not suit; nothing was learned.
        """
        reading = self.predictor.reading
        if isinstance(reading, Pictures) and not self.ledger.journal:  # the first pictures say what is light and what is dark
            reading = reading.settled(reading.levels(x, "x"))
        groups = groups_of(self.predictor, reading, x, y, task)
        check_names(self.predictor, {*self.kept.counts, *groups})
        examples = {name: self._examples_of(group) for name, group in groups.items()}
        again, drift = self._again(examples), self._drift(examples, alarm_rate)
        known = list(self.kept.counts)
        dropped = self.kept.learn(groups)
        self.predictor.reading = reading
        counts = {name: len(group.digests) for name, group in groups.items()}
        lesson = Lesson(counts, dropped, again, alike(known, list(groups)), drift)
        self._enter("learned", counts, lesson)
        for name, of_name in examples.items():
            self.ledger.add(name, of_name)
        return lesson

    def forget(self, *names: Name) -> dict[Name, int]:
        """Forgets classes, or tasks, as if they had never been seen; returns how many examples of each.

        Raises:
            InputError: a name is not known; nothing was forgotten.
        """
        self._check_can_forget()
        counts = self.kept.counts
        gone = {name: counts[name] for name in known_names(names, self.classes, self.noun)}
        for name in gone:
            self.kept.forget(name)
        self.ledger.remove(names=set(gone))
        self._enter("forgot", gone)
        return gone

    def forget_examples(self, x: Any, y: Any = None, names: list[str] | None = None) -> dict[Name, int]:
        """Forgets single examples, as if they had never been seen, under whatever name; returns how many of each name.

        Args:
            x: the same pictures or rows that were learned.
            y: of a regression, their targets.
            names: what a message calls them; null for the number of the row.

        Raises:
            InputError: one of them was never learned; nothing was forgotten.
        """
        self._check_can_forget()
        inputs = self.predictor.reading.inputs(x, "x")
        targets = None if self.is_classification else self.predictor.reading.targets(y, "y")
        digests = digests_of(inputs, targets)
        if unknown := [row for row, digest in enumerate(digests) if not self.ledger.times(digest)]:
            first = names[unknown[0]] if names else f"row {unknown[0] + 1}"
            many = f"{len(unknown)} of {len(digests)} examples were never learned"
            raise InputError(f"--forget_files: {many}, the first is {first}; leave them out")
        rows: dict[Name, list[int]] = {}
        for row, digest in enumerate(digests):
            if digest not in digests[:row]:  # a picture that is given twice is one
                for name, times in self.ledger.times(digest).items():
                    rows.setdefault(name, []).extend([row] * times)
        self.kept.forget_examples({name: some_of(inputs, targets, digests, chosen) for name, chosen in rows.items()})
        self.ledger.remove(digests=set(digests))
        gone = {name: len(chosen) for name, chosen in rows.items()}
        self._enter("took back", gone)
        return gone

    def merge(self, other: "LivingLearner", alarm_rate: float | None = ALARM_RATE) -> Lesson:
        """Takes in what another learner, of the same checkpoint, has learned; that one stays as it is.

        Args:
            other: the learner; of its examples each counts as if it came now.
            alarm_rate: as of `learn`.

        Raises:
            InputError: it is of another method or network, or keeps something else; nothing was merged.
        """
        check_mergeable((self.predictor, self.kept), (other.predictor, other.kept))
        examples = {name: other.ledger.of_name(name) for name in other.kept.counts}
        again, drift = self._again(examples), self._drift(examples, alarm_rate)
        known = list(self.kept.counts)
        check_names(self.predictor, {*self.kept.counts, *other.kept.counts})
        dropped = self.kept.merge(other.kept)
        self.predictor.reading = self.predictor.reading if known else other.predictor.reading
        counts = other.kept.counts
        self.ledger.merge(other.ledger)
        lesson = Lesson(counts, dropped, again, alike(known, list(counts)), drift)
        self._enter("merged", counts, lesson)
        return lesson

    def _again(self, examples: dict[Name, list[Example]]) -> int:
        return sum(bool(self.ledger.times(example.digest)) for of_name in examples.values() for example in of_name)

    def _drift(self, new: dict[Name, list[Example]], alarm_rate: float | None) -> Drift | None:
        if alarm_rate is None:
            return None
        recent = slice(-(self.kept.window or 0), None)
        return drift_of({name: self.ledger.of_name(name)[recent] for name in new}, new, alarm_rate)

    def _enter(self, did: str, counts: dict[Name, int], lesson: Lesson | None = None) -> None:
        """Writes into the journal what was done, and what it came to."""
        now = {"names": len(self.kept.counts), "examples": self.num_examples, "bytes": self.kept.nbytes}
        self.ledger.enter(did, counts, **(lesson.facts if lesson else {}), **now)
        self._answering.clear()

    # Answering

    def predict(self, x: Any, threshold: float | None = None, task: Name | None = None) -> Classification | Regression:
        """What the queries are; of a regression the values in a task, which may be left out where there is one alone."""
        return self.adapted(task).predict(x, threshold)

    def predict_sets(self, x: Any, coverage: float) -> list[list[Name]]:
        """The classes that cannot be excluded for each query, none where it is like no class; as of `prediction_sets`."""
        return prediction_sets(self.adapted(), x, coverage)

    def score(self, x: Any, y: Any, task: Name | None = None) -> float:
        """The accuracy on labelled queries; of a regression the mean squared error."""
        found = self.predict(x, task=task)
        if isinstance(found, Regression):
            return float((found.mean - self.predictor.reading.targets(y, "y")).square().mean())
        labels = labels_of(y, "y")
        return sum(one == other for one, other in zip(found.labels, labels, strict=True)) / len(labels)

    def adapted(self, task: Name | None = None) -> Adapted:
        """The predictor of all classes, or of a task."""
        key = None if self.is_classification else known_task(self.classes, task)
        if key not in self._answering:
            names = self.predictor.check_classes(self.classes) if self.is_classification else [key]
            self._answering[key] = answering(self.predictor, self.kept, names)
        return self._answering[key]

    # The file

    def save(self, path: str | Path) -> None:
        """Writes the learner to one file, whole or not at all.

        Raises:
            InputError: another program has written the file since this learner read or wrote it, or it cannot be written.
        """
        place = Path(path).expanduser()
        checkpoint, *made_with = self.predictor.source
        reading = self.predictor.reading
        content = {
            "checkpoint": {name: value for name, value in checkpoint.items() if name not in (*LEFT_OUT, *self.kept.replaces)},
            "made_with": made_with,
            "inverts": isinstance(reading, Pictures) and reading.inverts,
            "kind": self.kept.kind,
            "kept": self.kept.state(),
            "ledger": self.ledger.state(),
        }
        self._revisions[place.resolve()] = write_learner(place, content, self._revisions.get(place.resolve()))

    @classmethod
    def load(cls, path: str | Path, device: str | None = None, encoder_weights: str | None = None) -> "LivingLearner":
        """The learner of a file; arguments as of `app.load_learner`."""
        place = Path(path).expanduser()
        revision, content = revision_of(place), read_learner(place)
        options, polarity, weights = content["made_with"]
        predictor = predictor_of(content["checkpoint"], place, device, options, polarity, encoder_weights or weights)
        if isinstance(predictor.reading, Pictures):
            predictor.reading = replace(predictor.reading, inverts=content["inverts"])
        learner = cls(predictor, empty_memory(predictor, content["kind"]), Ledger.of_state(content["ledger"]))
        learner.kept.load(content["kept"])
        learner._revisions[place.resolve()] = revision
        return learner

    # Checks

    @property
    def is_classification(self) -> bool:
        """Whether it tells classes apart; else it has tasks of a regression."""
        return self.predictor.algorithm.task_type == "classification"

    @property
    def noun(self) -> str:
        """What a name is of."""
        return "class" if self.is_classification else "task"

    def _check_can_forget(self) -> None:
        if not self.kept.can_forget:
            raise InputError("a learner of a stream cannot take back what its weights have learned; learn the rest anew")
