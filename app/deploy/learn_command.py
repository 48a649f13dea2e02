"""The verb `learn`."""

from pathlib import Path
from typing import Any, Literal

from app.deploy.advice import turned
from app.deploy.checkpoint import restored
from app.deploy.drift import ALARM_RATE, Drift, check_rate
from app.deploy.examples import Labelled, given_examples, labelled
from app.deploy.inputs import Polarity
from app.deploy.ledger import Lesson
from app.deploy.living_learner import LivingLearner
from app.deploy.names import listed, method_name
from app.deploy.verb import Verb, without_model
from app.errors import InputError
from app.given_names import given_names
from app.runs.learner_file import held, read_learner


class Learn:
    """Teaches a learner that lives in a file: new classes, more examples, another learner's; or makes it forget some.

    One of support, forget, forget_files and merge is done in a call; without any it is said what the learner knows. A new
    learner begins with a checkpoint, and any option of the algorithm may follow, such as --model.transductive false.

    Args:
        learner: the file, which ends in .learner; with ckpt_path a new one.
        ckpt_path: file of a checkpoint, with which a new learner begins.
        support: labelled examples to learn: a folder or .zip of <class>/<picture>; of a FeatureTable a .npz, .csv or .parquet
            with its columns and that of the class; of a regression a .csv with the columns x and y, and the column that named the
            tasks in training, or --task.
        forget: names of classes, or tasks, to forget as if they had never been seen.
        forget_files: pictures to forget likewise: a folder, a .zip, or a text file with the path of a picture in each line; of
            tables a file of rows.
        merge: file of another learner, of the same checkpoint, to take in.
        held_out: labelled examples in the form of support that are not learned; the accuracy on them goes into the journal.
        task: of a regression, the task that the rows of a table without such a column are of.
        memory: examples of a class that a new learner keeps, where its algorithm needs them; null for any number.
        keep: which of them, where more arrive: all (more are refused), first, random or nearest (to the mean of their features).
        window: only the last so many examples of a class count for a new learner, and older ones fade; null for all.
        alarm_rate: what arrives is compared with what was learned of the same class; the chance of a false alarm in a call.
        seed: of what is drawn.
        polarity: of pictures of lines, where those of training were white on black: auto for what most of the first ones are.
        device: where to compute; null for a GPU where there is one.
        encoder_weights: file of the weights of the encoder that the checkpoint was trained with, where it is not in its place.
    """

    def __init__(
        self,
        learner: Path | str,
        ckpt_path: Path | str | None = None,
        support: Path | str | None = None,
        forget: str | list[str] | None = None,
        forget_files: Path | str | None = None,
        merge: Path | str | None = None,
        held_out: Path | str | None = None,
        task: str | None = None,
        memory: int | None = None,
        keep: Literal["all", "first", "random", "nearest"] = "all",
        window: int | None = None,
        alarm_rate: float = ALARM_RATE,
        seed: int = 0,
        polarity: Polarity = "auto",
        device: str | None = None,
        encoder_weights: Path | str | None = None,
    ):
        self.path = Path(learner).expanduser()
        if self.path.suffix != ".learner":
            raise InputError(f"--learner {learner} does not end in .learner; give a file that does")
        deeds = {"support": support, "forget": forget, "forget_files": forget_files, "merge": merge}
        if len(given := [f"--{name}" for name, value in deeds.items() if value is not None]) > 1:
            raise InputError(f"{' and '.join(given)} are given; give one of them a call")
        if ckpt_path is None and (memory is not None or keep != "all" or window is not None):
            raise InputError("--memory, --keep and --window are chosen when a learner begins, with --ckpt_path; leave them out")
        if ckpt_path is not None and (forget is not None or forget_files is not None):
            raise InputError("--ckpt_path begins a learner, which has nothing to forget yet; leave one of the two out")
        check_rate(alarm_rate)
        if merge is not None and Path(merge).expanduser().resolve() == self.path.resolve():
            raise InputError(f"--merge {merge} is the learner itself; give another one")
        self.ckpt_path, self.support, self.forget, self.forget_files = ckpt_path, support, forget, forget_files
        self.merge, self.held_out, self.task, self.device = merge, held_out, task, device
        self.memory, self.keep, self.window, self.seed, self.polarity = memory, keep, window, seed, polarity
        self.alarm_rate, self.weights = alarm_rate, encoder_weights

    def run(self, options: dict[str, Any]) -> int:
        """Does it, writes the file and says what came of it."""
        reads = not any((self.ckpt_path, self.support, self.forget, self.forget_files, self.merge, self.held_out))
        if reads:
            say(self.path, LivingLearner.load(self.path, self.device, self.weights), [])
            return 0
        if self.ckpt_path is None and not self.path.is_file():
            read_learner(self.path)  # says what is wrong
        with held(self.path):
            learner = self._learner(options)
            lines = self._do(learner)
            if self.held_out:
                lines += self._score(learner)
            learner.save(self.path)
        say(self.path, learner, lines)
        return 0

    def _learner(self, options: dict[str, Any]) -> LivingLearner:
        if self.ckpt_path is None:
            if options:
                raise InputError(f"--model.{next(iter(options))} is chosen when a learner begins, with --ckpt_path; leave it out")
            return LivingLearner.load(self.path, self.device, self.weights)
        if self.path.exists():
            raise InputError(
                f"--learner {self.path} is there already, and --ckpt_path would begin it anew; leave --ckpt_path out to go "
                "on, or give another file"
            )
        predictor = restored(self.ckpt_path, self.device, options, self.polarity, self.weights)
        return predictor.learner(self.memory, self.keep, self.seed, self.window)

    def _do(self, learner: LivingLearner) -> list[tuple[str, str]]:
        if self.support:
            parts = labelled(self.support, "--support", learner.predictor, self.task)
            rate = self.alarm_rate / len(parts)  # so that it is that of the whole call
            lessons = (learner.learn(*part, alarm_rate=rate) for part in parts)
            lines = [line for lesson in lessons for line in lesson_lines("learned", lesson, learner)]
            return lines + [line for part in parts for line in turned(learner.predictor.reading, "--support", part.x)]
        if self.forget is not None:
            names = given_names(self.forget, list(map(str, learner.classes)))
            return [("forgot", counted(learner.forget(*names)))]
        if self.forget_files:
            gone = learner.forget_examples(*given_examples(self.forget_files, learner.predictor))
            return [("forgot", counted(gone))]
        if self.merge:
            other = LivingLearner.load(self.merge, self.device, self.weights)
            return lesson_lines("merged", learner.merge(other, self.alarm_rate), learner)
        return []

    def _score(self, learner: LivingLearner) -> list[tuple[str, str]]:
        parts: list[Labelled] = labelled(self.held_out, "--held_out", learner.predictor, self.task)
        scores = [learner.score(*part) for part in parts]
        rows = [len(part.x) for part in parts]
        value = sum(score * count for score, count in zip(scores, rows, strict=True)) / sum(rows)
        learner.ledger.journal[-1]["held_out"] = {"score": value, "examples": sum(rows)}
        what = f"accuracy {100 * value:.2f} %" if learner.is_classification else f"root mean squared error {value**0.5:.4g}"
        known = set(learner.classes)
        others = learner.is_classification * sum(name not in known for part in parts for name in part.y)
        unknown = f", {others} of them of classes that it does not know" if others else ""
        return [("held out", f"{what} of {sum(rows)} examples{unknown}")]


def counted(counts: dict[Any, int]) -> str:
    """How many examples of how many names."""
    total = sum(counts.values())
    each = listed([f"{name} {count}" for name, count in counts.items()])
    return f"{total} example{'s' * (total != 1)} of {len(counts)}: {each}"


def lesson_lines(did: str, lesson: Lesson, learner: LivingLearner) -> list[tuple[str, str]]:
    """What came of learning or merging, for a person."""
    lines, noun = [(did, counted(lesson.counts))], learner.noun
    if lesson.dropped and learner.kept.window:
        lines.append(("faded", f"{counted(lesson.dropped)}; the last {learner.kept.window} of each {noun} count"))
    elif lesson.dropped:
        lines.append(("not kept", f"{counted(lesson.dropped)}; --memory allows no more"))
    if lesson.again:
        lines.append(("again", f"{lesson.again} of them had been learned before, and count once more"))
    for new, other in lesson.alike:
        lines.append(("two spellings", f"{new!r} and {other!r} stay two {noun}es" if noun == "class" else f"{new!r}, {other!r}"))
    return lines + drift_lines(lesson.drift, learner)


def drift_lines(drift: Drift | None, learner: LivingLearner) -> list[tuple[str, str]]:
    """Whether what arrived looks like what was learned."""
    if drift is None:
        return []
    count = len(drift.of_name)
    compared = f"{count} {learner.noun}" + ("es" if learner.is_classification else "s") * (count > 1)
    if not drift.is_seen:
        return [("drift", f"none seen in {compared} that were known before")]
    names = sorted(drift.names, key=drift.of_name.__getitem__)
    named = listed([f"{name} (p {drift.of_name[name]:.3f})" for name in names])
    what = named if names else f"{compared} together (p {drift.together:.3f}), though no single one stands out"
    rate = f"{100 * drift.alarm_rate:g} % of the calls"
    return [("drift", f"unlike what was learned before: {what}; where nothing changed, at most {rate} say so")]


def say(path: Path, learner: LivingLearner, lines: list[tuple[str, str]]) -> None:
    """Prints what was done, and what the learner knows now."""
    counts, method = learner.kept.counts, method_name(learner.predictor.algorithm)
    noun = learner.noun + ("es" if learner.is_classification else "s")
    knows = [(str(name), str(counts[name])) for name in learner.classes]
    lines = [
        *lines,
        ("learner", f"{path}, {path.stat().st_size:,} bytes"),
        ("method", f"{method}, which keeps {learner.kept.words}"),
        ("knows", f"{len(knows)} {noun}, {sum(counts.values())} examples"),
    ]
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:>{width}}  {text}" for name, text in lines))
    if len(lines) == 3:  # nothing was done: all of it
        for name, count in knows:
            print(f"{'':>{width}}  {count:>5}  {name}")
        for entry in learner.ledger.journal:
            print(f"{'journal':>{width}}  {entry['when']}  {entry['did']} {counted(entry['counts'])}")


def learn(args: list[str]) -> int:
    """Runs the verb and returns the exit status.

    Args:
        args: the command line after the verb.
    """
    verb = Verb("learn", Learn, "the learner or the checkpoint says what the algorithm and the inputs are")
    command, of_model = without_model(verb.read(args))
    return Learn(**verb.options(command)).run(of_model)
