"""The command line before it is parsed: what is named replaces what a config says, and what is not named has defaults."""

import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from app.command_line.parser import BACKBONES, METHODS, options_of
from app.errors import InputError
from app.learners.learner import Learner, concrete_subclasses, subclasses
from app.runs.processes import is_rank_zero
from datamodules.base.images import ImageEpisodes
from datamodules.base.resumable import ResumableDataModule
from datamodules.base.stream import StreamDataModule

CONFIGS = Path(__file__).parents[2] / "configs"
DEFAULTS = {"model": "MAML", "data": "Glyphs"}
SAME_TASK = ("data_dir", "cache_dir", "ways", "shots", "queries", "meta_batch_size", "val_episodes", "test_episodes")
FIRST_RUN = CONFIGS / "experiment" / "glyphs_maml_5w1s.yaml"
TASK = ("input_shape", "output_size", "train_output_size", "task_type")  # of the model, by the data
DERIVED = {f"--model.{name}": "--data" for name in (*TASK, "stream")} | {
    "--data.global_labels": "--model",
    "--data.seed": "--seed_everything",
}


def with_defaults(args: list[str], verbs: Any) -> tuple[bool, list[str]]:
    """The arguments with a verb, and whether there was none.

    Without a config, model or data the run is the one of the README. A model or data set named beside a config replaces the
    config's whole section, instead of keeping the options that the two classes happen to share; only a test on other pictures
    than those of the training keeps the task.
    """
    verb = next((argument for argument in args if argument in verbs), None)
    if args and args[0] in ("-h", "--help"):
        return False, args
    if verb is None and (not args or args[0].startswith("-")):
        named = ("--config", "-c", "--model", "--data")
        if not any(argument.split("=")[0].split(".")[0] in named for argument in args):
            args = ["--config", str(FIRST_RUN), *args]
        return True, _complete(["fit", *args])
    return False, _complete(args)


def refuse_derived(args: list[str]) -> None:
    """Raises an InputError where an option is given that follows from another one."""
    for option in (argument.split("=")[0].replace(".init_args", "") for argument in args):
        if option in DERIVED:
            raise InputError(f"{option} is no option of the command line: it follows from {DERIVED[option]}; leave it out")


def _separated(args: list[str]) -> list[str]:
    """`--option=value` as two arguments, for the options that are looked at here."""
    separate = re.compile(r"--(config|model|data|model\.backbone|model\.method|trainer\.logger)=")
    return [part for argument in args for part in (argument.split("=", 1) if separate.match(argument) else [argument])]


def _complete(args: list[str]) -> list[str]:
    args = _separated(args)
    for section in DEFAULTS:
        args = _class_first(section, args)
    positions = [
        position
        for position in range(1, len(args))
        if args[position - 1] in ("--config", "-c") and not args[position].startswith("-")
    ]
    configs = {position: _read(args[position]) for position in positions}
    _refuse_bases(args, configs.values())
    for section in DEFAULTS:
        if f"--{section}" not in args[:-1]:
            continue
        at = args.index(f"--{section}") + 1
        named, same_task = args[at], {}
        for position, config in configs.items():
            old = config.get(section)
            if isinstance(old, dict) and str(old.get("class_path")).rsplit(".", 1)[-1] != named.rsplit(".", 1)[-1]:
                del config[section]
                if section == "data" and args[0] in ("validate", "test"):
                    same_task = _same_task(old, named)
                if is_rank_zero():
                    kept = f" but {', '.join(same_task)}" if same_task else ""
                    print(
                        f"--{section} {named} replaces the {section} of {args[position]} with all its options{kept}",
                        file=sys.stderr,
                    )
                configs[position] = config
                args = [*args[:position], yaml.safe_dump(config), *args[position + 1 :]]
        if same_task:  # right behind the class: what the command line says comes later, and counts
            args = [*args[: at + 1], *(f"--data.{name}={value}" for name, value in same_task.items()), *args[at + 1 :]]
    if "--model.method" in args[:-1]:
        args = _without_method(args, configs)
    # Not in default.yaml: another class would take over all the options that it shares with the default one.
    defaults = DEFAULTS
    if _names_a_stream(args, configs.values()):
        defaults = DEFAULTS | {"model": "ContinualLearner"}
        if not any("max_steps" in (config.get("trainer") or {}) for config in configs.values()):
            args = [args[0], "--trainer.max_steps=-1", *args[1:]]  # the stream ends the run
    for section, default in defaults.items():
        if f"--{section}" not in args and not any(section in config for config in configs.values()):
            args = [args[0], f"--{section}", default, *args[1:]]
    if "--trainer.logger" in args[:-1]:
        after = len(args) - args[::-1].index("--trainer.logger") + 1
        if args[after - 1].rsplit(".", 1)[-1] in ("CSVLogger", "TensorBoardLogger"):  # which insist on it; it will be the run's
            args = [*args[:after], "--trainer.logger.save_dir=.", *args[after:]]
    # By their full names: torchvision has an MLP too, and an option that takes a function does not know names of classes.
    names = {"--model.backbone": BACKBONES, "--model.method": METHODS}
    return [names.get(before, {}).get(argument, argument) for before, argument in zip(["", *args], args, strict=False)]


def _same_task(old: dict[str, Any], named: str) -> dict[str, Any]:
    """The options of a config's pictures that hold for others too, on which its learner is tested."""
    content = _read(named) if named.endswith((".yaml", ".yml")) else {"class_path": named}
    found = {cls.__name__: cls for cls in concrete_subclasses(ImageEpisodes)}
    classes = [found.get(str(data.get("class_path")).rsplit(".", 1)[-1]) for data in (old, content)]
    if None in classes:
        return {}
    known, given = options_of(classes[1], "data"), content.get("init_args") or {}
    names = [name for name in SAME_TASK if f"--data.{name}" in known and name not in given]
    values = {name: (old.get("init_args") or {}).get(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _names_a_stream(args: list[str], configs: Iterable[dict[str, Any]]) -> bool:
    """Whether the data set is a stream, which a continual learner goes through once."""
    streams = {cls.__name__ for cls in concrete_subclasses(StreamDataModule)}
    return any(name in streams for name in _named("data", args, configs))


def _named(section: str, args: list[str], configs: Iterable[dict[str, Any]]) -> list[str]:
    """The names of the class of a section: the command line's, or those of the configs."""
    names = [str((config.get(section) or {}).get("class_path")) for config in configs]
    if f"--{section}" in args[:-1]:
        named = args[args.index(f"--{section}") + 1]
        names = [str(_read(named).get("class_path")) if named.endswith((".yaml", ".yml")) else named]
    return [name.rsplit(".", 1)[-1] for name in names]


def _refuse_bases(args: list[str], configs: Iterable[dict[str, Any]]) -> None:
    """Raises an InputError where a model or a data set is one that only others are made of."""
    for section, base in (("model", Learner), ("data", ResumableDataModule)):
        whole = {cls.__name__ for cls in concrete_subclasses(base)}
        bases = {cls.__name__ for cls in (base, *subclasses(base))} - whole
        for name in bases.intersection(_named(section, args, configs)):
            raise InputError(f"--{section} {name} is what others are made of; give one of {', '.join(sorted(whole))}")


def _without_method(args: list[str], configs: dict[int, dict[str, Any]]) -> list[str]:
    """The arguments where a continual method that is named beside a config of another one replaces it with all its options."""
    named = args[args.index("--model.method") + 1]
    for position, config in configs.items():
        options = (config.get("model") or {}).get("init_args") or {}
        old = options.get("method")
        if isinstance(old, dict) and str(old.get("class_path")).rsplit(".", 1)[-1] != named.rsplit(".", 1)[-1]:
            del options["method"]
            if is_rank_zero():
                print(f"--model.method {named} replaces the method of the config with all its options", file=sys.stderr)
            args = [*args[:position], yaml.safe_dump(config), *args[position + 1 :]]
    return args


def _class_first(section: str, args: list[str]) -> list[str]:
    """The class of a section before its options, which belong to it wherever they stand."""
    position = args.index(f"--{section}") if f"--{section}" in args else 0
    first = next((number for number, argument in enumerate(args) if argument.startswith(f"--{section}.")), position)
    if first >= position:
        return args
    return [*args[:first], *args[position : position + 2], *args[first:position], *args[position + 2 :]]


def _read(config: str) -> dict[str, Any]:
    """The content of a config file.

    Raises:
        InputError: it cannot be read as a mapping.
    """
    path = Path(config)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        near = get_close_matches(path.stem, {file.stem: file for file in CONFIGS.rglob("*.yaml")}, n=3, cutoff=0.4)
        files = [os.path.relpath(file) for file in sorted(CONFIGS.rglob("*.yaml")) if file.stem in near]
        hint = f"the nearest are {', '.join(files)}" if files else f"there are some in {os.path.relpath(CONFIGS)}"
        raise InputError(f"--config {config} does not exist; {hint}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"--config {config} is not valid YAML at line {line}: {error.problem}; correct it") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--config {config} cannot be read ({error}); give a YAML file") from error
    if not isinstance(content, dict):
        kind = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise InputError(f"--config {config} {kind}; give a YAML file of options such as `trainer: {{max_steps: 100}}`")
    return content
