"""The options of a run after a look at each: whatever is unknown, missing or of another kind is said here, in our own words."""

import inspect
import sys
from difflib import get_close_matches
from functools import partial
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from app.command_line.classes import (
    Option,
    classes_in,
    find_class,
    known_classes,
    named_by_option,
    options_of,
    options_of_parser,
)
from app.command_line.command import Command, Words
from app.command_line.config_files import is_file, named_by_file
from app.command_line.rules import DERIVED, check_values, merged_options
from app.command_line.section import CLASSES, Section, from_mapping, on_top, short
from app.command_line.values import Elsewhere, Mismatch, described, value_of
from app.errors import UsageError
from app.runs.processes import is_rank_zero


def options_of_run(command: Command, parser: LightningArgumentParser) -> dict[str, Any]:
    """All options of a run: those of its configs and its command line, what follows from them, each of them checked.

    Args:
        command: what a person typed.
        parser: the verb's.

    Raises:
        InputError: something of them is wrong.
    """
    verb = command.verb or "fit"
    chosen_to = sys.stderr if command.prints_config else sys.stdout  # a config that is printed stands alone
    speakers = (partial(print, file=file) if is_rank_zero() else lambda _: None for file in (sys.stderr, chosen_to))
    given = merged_options(command, *speakers)
    more_help = f"all options: train.py {verb} --help; of one class: train.py {verb} --model.help MAML"
    known = options_of_parser(parser) | {"seed_everything": Option(int)}  # Lightning's may be true: no seed for the data
    options = Checked(known, more_help).whole(given)
    check_values(options)
    return options


class Checked:
    """Makes of the words that were given what jsonargparse takes.

    Args:
        known: the options that are no class's own, by their whole names.
        more_help: where all options are listed.
    """

    def __init__(self, known: dict[str, Option], more_help: str):
        self.known, self.more_help = known, more_help

    def whole(self, given: Section) -> dict[str, Any]:
        """All options of a run, as a mapping.

        Raises:
            UsageError: an option is unknown, missing, or has a value of another kind.
        """
        groups = {name.rpartition(".")[0] for name in self.known if "." in name}
        found: dict[str, Any] = {}
        for name, value in given.options.items():
            if name in groups and (not isinstance(value, Section) or value.name is not None):
                raise UsageError(f"--{name} is {shown(value)}; give a YAML file, or its options by their names", self.more_help)
            if name in groups:
                found[name] = {key: self._of_run(f"{name}.{key}", one, given) for key, one in value.options.items()}
            else:
                found[name] = self._of_run(name, value, given)
        if missing := [name for name, option in self.known.items() if option.required and name not in found]:
            self._missing(missing)
        return found

    def _of_run(self, place: str, value: Any, given: Section) -> Any:
        if place in self.known:
            return self.value(place, value, self.known[place])
        inside = value.options if isinstance(value, Section) else value
        names = list(self.known)
        for section in CLASSES:
            chosen = given.options.get(section)
            if isinstance(chosen, Section) and chosen.name and section in self.known:
                component = find_class(chosen.name, self.known[section].hint, section)[1]
                names += [f"{section}.{name}" for name in options_of(component)]
        self._unknown(f"{place}.{next(iter(inside))}" if isinstance(inside, dict) and inside else place, names)

    def value(self, place: str, value: Any, option: Option) -> Any:
        """The value of one option.

        Args:
            place: its whole name.
            value: what was given.
            option: what it takes.
        """
        try:
            return value_of(value, option.hint, lambda section: self._chosen(place, section, option.hint, option.default))
        except Elsewhere:
            raise UsageError(f"--{place} is {shown(value)}, {Elsewhere.SAID}") from None
        except Mismatch:
            if isinstance(value, Section) and value.options:
                self._unknown(f"{place}.{next(iter(value.options))}", [*self.known, place])
            wanted = described(option.hint)
            quotes = " in quotes" if isinstance(value, Words) and wanted in ("a text", "a path") else ""
            raise UsageError(f"--{place} is {shown(value)}; give {wanted}{quotes}") from None

    def _chosen(self, place: str, section: Section, hint: Any, default: Any) -> dict[str, Any]:
        """A class and its options."""
        if is_file(section.name):
            section = named_by_file(section, place, section.file)
        if section.name is None and isinstance(default, dict) and "class_path" in default:
            section = on_top(from_mapping(default), section, place, lambda _: None)
        bases = classes_in(hint)
        section = named_by_option(section, bases)
        if section.name is None:
            names = " or ".join(sorted(name for base in bases for name in known_classes(base)))
            option = next(iter(section.options), "class_path")
            raise UsageError(f"--{place}.{option} needs a class; give --{place} {names} before it", self.more_help)
        path, component = find_class(section.name, hint, place)
        made_by = (number for base, number in bases.items() if not inspect.isclass(component) or issubclass(component, base))
        options = options_of(component, next(made_by, 0))
        for name in section.options:
            if name not in options:
                own = [f"{place}.{one}" for one in options if (place, one) not in DERIVED]
                self._not_of(place, name, component, hint, own)
        values = {name: self.value(f"{place}.{name}", value, options[name]) for name, value in section.options.items()}
        required = [name for name, option in options.items() if option.required and (place, name) not in DERIVED]
        if missing := [f"{place}.{name}" for name in required if name not in values]:
            self._missing(missing)
        spec = {"class_path": path, "init_args": values, "dict_kwargs": section.untyped}
        return {key: value for key, value in spec.items() if value}

    def _not_of(self, place: str, name: str, component: Any, hint: Any, own: list[str]) -> NoReturn:
        """Says that the chosen class has no such option, but perhaps another one has it."""
        others = []
        for base, given in classes_in(hint).items() if place in CLASSES else ():
            paths = [path for paths in known_classes(base).values() for path in paths]
            others += [short(path) for path in paths if name in options_of(find_class(path, hint, place)[1], given)]
        if others:
            owners = ", ".join(sorted(others))
            raise UsageError(f"--{place}.{name} is an option of {owners}, not of {component.__name__}", self.more_help)
        self._unknown(f"{place}.{name}", own)

    def _unknown(self, place: str, names: list[str]) -> NoReturn:
        near = get_close_matches(f"--{place}", [f"--{name}" for name in names], n=3, cutoff=0.5)
        raise UsageError(f"unknown option --{place}", f"nearest valid names: {', '.join(near) or 'none'}", self.more_help)

    def _missing(self, names: list[str]) -> NoReturn:
        listed = ", ".join(f"--{name}" for name in names)
        raise UsageError(f"{listed} {'is missing; give it' if len(names) == 1 else 'are missing; give them'}", self.more_help)


def shown(value: Any) -> str:
    """A value as a person wrote it."""
    if isinstance(value, Words):
        return " ".join(value)
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
    return str(value.name if isinstance(value, Section) else value)
