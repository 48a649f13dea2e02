"""The classes that an option takes by their names, and the options that a class has."""

import inspect
import sys
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor
from torch.nn import Module

import app.backbones
from app.command_line.section import Section, short
from app.command_line.words import Word
from app.errors import UsageError
from app.jsonargparse_internals import typed_options
from app.learners.learner import concrete_subclasses, is_concrete, subclasses, unwritten

OWN = ("app.", "callbacks.", "datamodules.")


class Option(NamedTuple):
    """An option of a class.

    Attributes:
        hint: type of its value.
        default: a class as a mapping with `class_path`.
        required: whether it has no default.
    """

    hint: Any
    default: Any = None
    required: bool = False


@cache
def options_of(component: Callable[..., Any], given: int = 0) -> dict[str, Option]:
    """The options of a class or of a function by their names, those that it hands on to its bases among them.

    Args:
        component: the class or the function.
        given: so many of the first parameters are no options: whoever calls it gives them.
    """
    parser = LightningArgumentParser()
    add = parser.add_class_arguments if inspect.isclass(component) else parser.add_function_arguments
    add(component, fail_untyped=False, skip={given})
    return options_of_parser(parser)


def options_of_parser(parser: LightningArgumentParser) -> dict[str, Option]:
    """The options of a parser by their whole names."""
    options = typed_options(parser).items()
    return {name: Option(hint, _as_mapping(action.default), action.required) for name, (action, hint) in options}


def _as_mapping(default: Any) -> Any:
    return default.as_dict() if isinstance(default, Namespace) else default


def classes_in(hint: Any) -> dict[type, int]:
    """The classes whose subclasses are values of a type, each with the number of parameters that its caller gives.

    `Callable[[Iterable], Optimizer]` is an optimiser whose first parameter is given.
    """
    return dict(_classes_in(hint, 0))


def _classes_in(hint: Any, given: int) -> Iterator[tuple[type, int]]:
    kind, parts = get_origin(hint), get_args(hint)
    if kind is abc.Callable:
        yield from _classes_in(parts[1], len(parts[0]) if isinstance(parts[0], list) else 0)
    elif kind is not None and kind is not Literal:
        for part in parts:
            yield from _classes_in(part, given)
    elif inspect.isclass(hint) and hint is not Tensor and hint.__module__.split(".")[0] not in sys.stdlib_module_names:
        yield hint, given  # neither a value of Python's own nor a tensor, which nobody chooses by its class


def has_global_labels(class_path: str) -> bool:
    """Whether a method is trained on all classes at once."""
    return resolve_name(class_path).global_labels


def is_base(cls: type) -> bool:
    """Whether a class is one that only others are made of."""
    return not is_concrete(cls) or cls.__module__.startswith("app.continual.base.")


def known_classes(base: type) -> dict[str, list[str]]:
    """The full names of the classes that an option of this type takes, by their short ones."""
    classes = concrete_subclasses(base)
    if base is Module:  # every layer of torch is one, too, and torchvision has an MLP
        classes = [cls for cls in vars(app.backbones).values() if inspect.isclass(cls) and issubclass(cls, Module)]
    found: dict[str, list[str]] = {}
    for cls in dict.fromkeys(classes):
        if not is_base(cls) and not cls.__name__.startswith("_") and (path := full_name(cls)):
            found.setdefault(cls.__name__, []).append(path)
    return found


def full_name(cls: type) -> str | None:
    """The shortest name by which a class is imported; null for one that was made on the way, as Lightning's optimisers are."""
    parts = cls.__module__.split(".")
    places = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    found = (f"{place}.{cls.__name__}" for place in places if getattr(sys.modules.get(place), cls.__name__, None) is cls)
    return next(found, None)


def named_by_option(section: Section, bases: Iterable[type]) -> Section:
    """The section where its name is no class, but the value of the option by which the only class there is says it is named.

    `--data.encoder resnet18` is an `Encoder` whose `name` is resnet18.
    """
    (first, *others) = bases
    option = getattr(first, "named_by", None)
    if others or option is None or section.name is None or short(section.name) == first.__name__:
        return section
    options = {option: Word(section.name)} | section.options
    return Section(f"{first.__module__}.{first.__name__}", options, section.file, section.untyped)


def find_class(name: str, hint: Any, place: str) -> tuple[str, Any]:
    """The full name of a class or function, and itself.

    Args:
        name: its short or its full name.
        hint: type of the option.
        place: name of the option.

    Raises:
        UsageError: there is none, there are several, or it is one that only others are made of.
    """
    bases = list(classes_in(hint))
    known = {} if "." in name else _known(bases)
    paths = [str(name)] if "." in name else known.get(name, [])
    if name.startswith(OWN) and not _is_there(name):  # it has another place than when the config was written
        paths = _known(bases).get(short(name), paths)
    paths = [path for path in paths if path in map(full_name, bases)] or paths
    if len(paths) > 1:
        raise UsageError(f"--{place} {name} is ambiguous; give one of {', '.join(paths)}")
    try:
        found = resolve_name(paths[0])
    except (IndexError, ImportError, AttributeError, ValueError) as error:
        found = next((cls for base in bases for cls in (base, *subclasses(base)) if cls.__name__ == name), None)
        if found is None:
            known = _known(bases)
            near = get_close_matches(short(name), known, n=1, cutoff=0.4)
            valid = [f"valid names: {', '.join(sorted(known))}; or a YAML file"] if known else []
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"unknown --{place} {name}{meant}", *valid) from error
    if inspect.isclass(found) and (kind := _unfit(found, bases)):
        raise UsageError(f"--{place} {name} is {kind}; give one of {', '.join(sorted(_known(bases)))}")
    return next(iter(paths), name), found


def _is_there(name: str) -> bool:
    with suppress(ImportError, AttributeError, ValueError):
        resolve_name(name)
        return True
    return False


def _unfit(found: type, bases: list[type]) -> str | None:
    """What keeps an option from taking a class, if anything."""
    if not issubclass(found, tuple(bases)):
        return f"no {' or '.join(base.__name__ for base in bases)}"
    if missing := [name for name in unwritten(found) if name != "__init__"]:  # which only says that a class is a base
        return f"not complete, it does not say {', '.join(missing)}"
    return "what others are made of" if is_base(found) else None


def _known(bases: list[type]) -> dict[str, list[str]]:
    return {name: paths for base in bases for name, paths in known_classes(base).items()}
