"""Options that belong together, and how one layer of them goes on top of another."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from app.command_line import words
from app.command_line.words import Word
from app.errors import InputError

CLASSES = ("model", "data")  # the sections that are a class each; `trainer` is a group of options
RESERVED = ("class_path", "init_args", "dict_kwargs")


@dataclass
class Section:
    """A class and its options, or a group of options.

    Attributes:
        name: of the class, or of a YAML file that names it; null for a group, and where the class of a lower layer stays.
        options: their values by name: words, texts, lists, mappings, and sections where an option is a class again.
        file: the config that it comes from; null for the command line.
        untyped: what the class takes beyond its signature.
    """

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    untyped: dict[str, Any] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The name of the class without its module."""
        return short(self.name)


class Appended(list):
    """Items that come after those of the lower layer."""


@dataclass(frozen=True)
class Replaced:
    """A class of a config with options that another class has put aside."""

    place: str
    name: str
    file: str


def short(name: Any) -> str:
    """The name of a class without its module."""
    return str(name).rsplit(".", 1)[-1]


def as_section(value: Any) -> Section:
    """The section that a value is, or that its name stands for; an empty one for anything else."""
    return value if isinstance(value, Section) else Section(value if isinstance(value, str) else None)


def from_mapping(content: Any, file: str | None = None) -> Any:
    """The value of an option in a YAML file, where whatever has a `class_path` is a section."""
    if isinstance(content, list):
        return [from_mapping(item, file) for item in content]
    if not isinstance(content, dict):
        return content
    if not {"class_path", "init_args"} & content.keys():
        return {str(key): from_mapping(value, file) for key, value in content.items()}
    name, options, untyped = (content.get(key) or {} for key in RESERVED)
    where = f"{file}: " if file else ""
    if name and not isinstance(name, str):
        raise InputError(f"{where}class_path is {name}; give the name of a class")
    if not isinstance(options, dict) or not isinstance(untyped, dict):
        raise InputError(f"{where}what comes with {name or 'init_args'} is {options or untyped}; give a mapping of options")
    rest = {key: value for key, value in content.items() if key not in RESERVED}
    return Section(name or None, group({**options, **rest}, file).options, file, words.plain(untyped))


def group(content: dict[str, Any], file: str | None = None) -> Section:
    """A mapping of options; `name+` appends to a list."""
    section = Section(file=file)
    for key, value in content.items():
        name, value = str(key).removesuffix("+"), from_mapping(value, file)
        section.options[name] = Appended(as_list(value)) if key.endswith("+") else value
    return section


def unpacked(value: Any) -> Any:
    """The list or mapping that a word in brackets or braces holds; anything else as it is."""
    if isinstance(value, Word) and value.startswith(("[", "{")):
        with suppress(yaml.YAMLError):
            return from_mapping(words.load(value))
    return value


def as_list(value: Any) -> list[Any]:
    """A list as it is or as a word holds it; anything else alone in a list."""
    value = unpacked(value)
    return value if isinstance(value, list) else [] if value is None or value == "null" else [value]


def on_top(below: Any, above: Any, place: str, replaced: Callable[[Replaced], None]) -> Any:
    """What an option is, of which a lower and a higher layer speak.

    A class that is named anew keeps its options; another class puts those of the lower one aside, all of them.

    Args:
        below: of the lower layer.
        above: of the higher layer, which counts.
        place: name of the option.
        replaced: is told what was put aside.
    """
    if isinstance(above, Appended):
        return type(below)([*below, *above]) if isinstance(below, list) else [*as_list(below), *above]
    name = above.name if isinstance(above, Section) else above if isinstance(above, str) else None
    if isinstance(below, Section) and name is not None:
        if below.name and short(name) != below.short:
            if below.options and below.file and isinstance(words.plain(name), str):
                replaced(Replaced(place, short(name), below.file))
            return above
        above = above if isinstance(above, Section) else Section(name)
    if not isinstance(above, Section):
        return above
    if isinstance(below, list) and above.name is None and below:
        return type(below)([*below[:-1], on_top(below[-1], above, place, replaced)])
    below = as_section(below)
    options = dict(below.options)
    for name, value in above.options.items():
        at = f"{place}.{name}".removeprefix(".")
        options[name] = on_top(options[name], value, at, replaced) if name in options else value
    return Section(above.name or below.name, options, above.file or below.file, {**below.untyped, **above.untyped})


def layered(layers: Iterable[Section], replaced: Callable[[Replaced], None] = lambda _: None) -> Section:
    """All layers as one, from the lowest to the highest."""
    whole = Section()
    for layer in layers:
        whole = on_top(whole, layer, "", replaced)
    return whole


def put(section: Section, path: list[str], value: Any) -> None:
    """Sets an option, as `model.optimizer.lr`, in a layer.

    Args:
        section: the layer.
        path: the names of the options on the way; the last one may end in `+`.
        value: its value.
    """
    name, *rest = path
    grows, name = name.endswith("+"), name.removesuffix("+")
    old = section.options.get(name)
    if rest and rest != ["class_path"]:
        inner = as_section(old[-1] if isinstance(old, list) and old else old)
        section.options[name] = type(old)([*old[:-1], inner]) if isinstance(old, list) and old else inner
        put(inner, rest, value)
    elif grows:
        kind = Appended if old is None else type(old) if isinstance(old, list) else list
        section.options[name] = kind([*as_list(old), *as_list(value)])
    elif isinstance(old, Section) and old.name is None:  # the class of options that were given before it
        section.options[name] = Section(value, old.options)
    else:
        section.options[name] = value
