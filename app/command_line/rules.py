"""What follows from a command line without being said: each rule is a function from layers of options to layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.command_line import words
from app.command_line.classes import options_of
from app.command_line.command import Command
from app.command_line.config_files import CONFIGS, read_config, with_files
from app.command_line.section import Replaced, Section, as_section, layered, short, unpacked
from app.command_line.suited import suited
from app.command_line.words import Word
from app.errors import InputError
from app.learners.learner import concrete_subclasses
from datamodules.base.images import ImageEpisodes
from datamodules.base.stream import StreamDataModule

FIRST_RUN = CONFIGS / "experiment" / "glyphs_maml_5w1s.yaml"
DEFAULTS = CONFIGS / "default.yaml"
SAME_TASK = (
    *("data_dir", "cache_dir", "encoder", "augment"),
    *("ways", "shots", "queries", "meta_batch_size", "val_episodes", "test_episodes"),
)
TASK = ("input_shape", "output_size", "train_output_size", "task_type")  # of the model, by the data
DERIVED = {("model", name): "--data" for name in (*TASK, "stream")} | {
    ("data", "global_labels"): "--model",
    ("data", "seed"): "--seed_everything",
}
WITH_SAVE_DIR = ("CSVLogger", "TensorBoardLogger")


def merged_options(
    command: Command, say: Callable[[str], None] = lambda _: None, tell: Callable[[str], None] | None = None
) -> Section:
    """All options of a run in one: those of default.yaml, the configs, the command line, and what follows from them.

    Args:
        command: what a person typed.
        say: is told what a class that is named anew puts aside.
        tell: is told what was chosen by the data; null for `say`.
    """
    replaced: list[Replaced] = []
    configs = layered([read_config(path) for path in first_run(command)], replaced.append)
    options = with_files(command.layer())
    kept = keep_the_task(command.verb, configs, options)
    given = layered([configs, where_the_run_lies(command.configs), options, kept], replaced.append)
    for one in replaced:
        names = kept.options["data"].options if one.place == "data" and "data" in kept.options else {}
        but = f" but {', '.join(names)}" if names else ""
        say(f"--{one.place} {one.name} replaces the {one.place.rpartition('.')[2]} of {one.file} with all its options{but}")
    refuse_derived(given)
    whole = with_default_classes(given)
    below = [read_config(str(DEFAULTS)), once_through_a_stream(given)]
    below += [suited(whole, configs, tell or say)] if command.verb in (None, "fit") else []  # nothing else trains
    return save_logs_in_the_run(layered([*below, whole]))


def shown_defaults() -> dict[str, Any]:
    """What default.yaml says, by whole names, for the help."""
    content = words.plain(words.load(DEFAULTS.read_text(encoding="utf-8")))
    trainer = {f"trainer.{name}": value for name, value in content.pop("trainer").items()}
    return content | trainer


def first_run(command: Command) -> list[str]:
    """The configs: the one of the README where there is neither a verb nor anything that names a model or data."""
    return command.configs if command.verb or command.names_something else [str(FIRST_RUN)]


def where_the_run_lies(configs: list[str]) -> Section:
    """The folder of a run is the one that its config lies in, wherever the run was copied or moved to."""
    for path in map(Path, reversed(configs)):
        if path.name == "config.yaml" and (path.parent / "checkpoints").is_dir():
            return Section(options={"trainer": Section(options={"default_root_dir": str(path.parent)})})
    return Section()


def keep_the_task(verb: str | None, configs: Section, options: Section) -> Section:
    """What a test on other pictures keeps of the config's: where its learner is tested is all that changes."""
    old, new = configs.options.get("data"), as_section(options.options.get("data"))
    if verb not in ("validate", "test") or not isinstance(old, Section) or new.name is None or old.short == new.short:
        return Section()
    pictures = {cls.__name__: cls for cls in concrete_subclasses(ImageEpisodes)}
    if old.short not in pictures or new.short not in pictures:
        return Section()
    known = options_of(pictures[new.short])
    names = [name for name in SAME_TASK if name in old.options and name in known and name not in new.options]
    kept = {name: old.options[name] for name in names if words.plain(old.options[name]) is not None}
    return Section(options={"data": Section(options=kept)} if kept else {})


def refuse_derived(given: Section) -> None:
    """Raises an InputError where an option is given that follows from another one."""
    for (section, name), source in DERIVED.items():
        if name in as_section(given.options.get(section)).options:
            raise InputError(f"--{section}.{name} is no option of the command line: it follows from {source}; leave it out")


def check_values(options: dict[str, Any]) -> None:
    """Raises an InputError where an option of the run has a value of the right kind with which it cannot keep its word."""
    if not 0 <= options["seed_everything"] < 2**32:
        raise InputError(f"--seed_everything is {options['seed_everything']}; give 0 to {2**32 - 1}")
    if (batches := options["trainer"].get("accumulate_grad_batches", 1)) != 1:
        raise InputError(
            f"--trainer.accumulate_grad_batches {batches} would break exact resuming; raise --data.meta_batch_size, and bound "
            "the memory by --model.tasks_per_chunk"
        )


def once_through_a_stream(given: Section) -> Section:
    """The options below those that are given: a stream of experiences ends the run by itself, not a number of steps."""
    return Section(options={"trainer": Section(options={"max_steps": Word(-1)})} if _is_stream(given) else {})


def with_default_classes(given: Section) -> Section:
    """The options with a model and data: MAML on glyphs, or a continual learner where the data are a stream.

    Not in default.yaml: another class would be said to replace them.
    """
    defaults = {"model": "ContinualLearner" if _is_stream(given) else "MAML", "data": "Glyphs"}
    classes = {section: as_section(given.options.get(section)) for section in defaults}
    missing = {section: Section(defaults[section]) for section, own in classes.items() if own.name is None}
    return layered([Section(options=missing), given])


def save_logs_in_the_run(given: Section) -> Section:
    """The options with the folder on which some loggers insist; it becomes the run's."""
    folder = {"save_dir": "."}

    def with_folder(logger: Any) -> Any:
        if short(as_section(logger).name) not in WITH_SAVE_DIR:
            return logger
        return layered([Section(options=folder), as_section(logger)])

    logger = unpacked(as_section(given.options.get("trainer")).options.get("logger"))
    own = [with_folder(one) for one in logger] if isinstance(logger, list) else with_folder(logger)
    return layered([given, Section(options={"trainer": Section(options={"logger": own})})])


def _is_stream(given: Section) -> bool:
    """Whether the data are a stream of experiences, which a continual learner goes through once."""
    return as_section(given.options.get("data")).short in {cls.__name__ for cls in concrete_subclasses(StreamDataModule)}
