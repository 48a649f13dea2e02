"""What a word is, by the type of the option that it is given to."""

import os
import re
from collections import abc
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

from app.command_line import words
from app.command_line.classes import classes_in
from app.command_line.section import Section, unpacked
from app.command_line.words import Word

PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null", dict: "a mapping"}
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
SEQUENCES = (list, tuple, set, abc.Iterable, abc.Sequence)
MAPPINGS = (dict, abc.Mapping)


URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


class Mismatch(Exception):
    """A value is not of the type."""


class Elsewhere(Mismatch):
    """A path is a URL, and all files are read and written on this machine."""

    SAID = "and all files are read and written on this machine; give a path, such as where it is mounted"


def parts_of(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a type; itself where there is one."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def value_of(value: Any, hint: Any, choose: Callable[[Section], Any]) -> Any:
    """The value that an option gets.

    A word is what the type makes of it: a text stays as it was typed, whatever YAML would take it for. What the type says
    nothing of is left to YAML, and to jsonargparse.

    Args:
        value: word, text, list, mapping or section.
        hint: type of the option.
        choose: makes of a class and its options what the option gets.

    Raises:
        Mismatch: it is not of that type.
    """
    alternatives = sorted(parts_of(hint), key=_rank)
    if any(map(_is_text, alternatives)) and isinstance(value, str):
        if not isinstance(value, Word):
            alternatives = list(filter(_is_text, alternatives))
        elif not value.startswith(("[", "{")):
            alternatives = [kind for kind in alternatives if get_origin(kind) not in (*SEQUENCES, *MAPPINGS)]
        elif _is_one_in_brackets(value):  # as `[Ca]`, where a list of one text would be written without brackets
            alternatives = [kind for kind in alternatives if not any(map(_is_text, get_args(kind)))]
    for alternative in alternatives:
        try:
            return _value(value, alternative, choose)
        except Elsewhere:
            raise
        except Mismatch:
            continue
    raise Mismatch


def _rank(hint: Any) -> int:
    """Where an alternative is tried: what a word can be before what takes any word, one before many."""
    order, kind = [NoneType, bool, int, float], get_origin(hint) or hint
    if hint in order:
        return order.index(hint)
    if kind is Literal:
        return 4
    if kind in (*SEQUENCES, *MAPPINGS):
        return 9 if classes_in(hint) else 5
    return 7 if hint is str else 6 if _is_text(hint) else 8 if classes_in(hint) else 10


def _value(value: Any, hint: Any, choose: Callable[[Section], Any]) -> Any:
    """The value as one alternative of a type has it."""
    kind = get_origin(hint) or hint
    if kind is Literal:
        return _one_of(value, get_args(hint))
    if kind in (NoneType, bool, int, float):
        return _scalar(value, kind)
    if _is_text(hint):
        return _text(value, hint)
    if kind in SEQUENCES:
        return _sequence(value, hint, choose)
    if kind in MAPPINGS:
        return _mapping(value, hint, choose)
    if kind is abc.Callable or classes_in(hint):
        return _class(value, choose)
    if hint is Tensor:
        raise Mismatch
    return words.plain(value)


def _is_one_in_brackets(word: Word) -> bool:
    items = unpacked(word)
    return isinstance(items, list) and len(items) == 1 and isinstance(items[0], Word)


def _is_text(hint: Any) -> bool:
    return hint in (str, Path)


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if isinstance(value, str) and (str(choice) == value or (isinstance(choice, bool) and words.boolean(value) is choice)):
            return choice
    raise Mismatch


def _scalar(value: Any, kind: type) -> Any:
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(value) if kind is float else value
    if kind is NoneType and isinstance(value, Word) and words.NULL.fullmatch(value):
        return None
    readers = {bool: words.boolean, int: words.integer, float: words.number}
    if kind in readers and isinstance(value, str) and (found := readers[kind](value)) is not None:
        return found
    raise Mismatch


def _text(value: Any, hint: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch
    if hint is Path and URL.match(value):
        raise Elsewhere
    return str(os.path.expanduser(value) if hint is Path else value)


def _sequence(value: Any, hint: Any, choose: Callable[[Section], Any]) -> list[Any]:
    """The items of a list, of `[3, 7]`, `(3, 7)`, `3, 7` and `3 7`; anything else is a list of one."""
    if isinstance(value, Word) and not value.startswith("["):
        bare = value.strip().removeprefix("(").removesuffix(")")
        value = Word(f"[{', '.join(bare.replace(',', ' ').split())}]")
    value = unpacked(value)
    if isinstance(value, Word):  # with brackets, and no list
        raise Mismatch
    items = list(value) if isinstance(value, list | tuple) else [value]
    inner = get_args(hint) or (Any,)
    if get_origin(hint) is tuple and inner[-1] is not Ellipsis:
        if len(items) != len(inner):
            raise Mismatch
        return [value_of(item, part, choose) for item, part in zip(items, inner, strict=True)]
    return [value_of(item, inner[0], choose) for item in items]


def _mapping(value: Any, hint: Any, choose: Callable[[Section], Any]) -> dict[str, Any]:
    value = unpacked(value)
    if isinstance(value, Section) and value.name is None:
        value = value.options
    if not isinstance(value, dict):
        raise Mismatch
    inner = (get_args(hint) or (str, Any))[1]
    return {str(key): value_of(item, inner, choose) for key, item in value.items()}


def _class(value: Any, choose: Callable[[Section], Any]) -> Any:
    value = unpacked(value)
    if not isinstance(value, str | dict | Section):
        raise Mismatch
    return choose(Section(str(value)) if isinstance(value, str) else Section(options=value) if isinstance(value, dict) else value)


def described(hint: Any) -> str:
    """What an option takes, in words."""
    kinds = dict.fromkeys(_described(part) for part in parts_of(hint) if part not in (NoneType, Tensor))
    for wider, narrower in ((PLAIN[float], PLAIN[int]), ("a path", PLAIN[str])):
        if wider in kinds:
            kinds.pop(narrower, None)
    choices = [choice for kind in kinds if isinstance(kind, tuple) for choice in kind]
    parts = [kind for kind in kinds if isinstance(kind, str)]
    parts += [f"one of {', '.join(dict.fromkeys(choices))}"] * bool(choices)
    return " or ".join(parts)


def _described(hint: Any) -> str | tuple[str, ...]:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return tuple(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in inner)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        numbers = ["0.5", "0.25"] * 2 if float in parts_of(inner[0]) else "3579" if int in parts_of(inner[0]) else "abcd"
        example = ",".join(numbers[: len(inner)])
        return f"{COUNTS.get(len(inner), len(inner))} values, each {described(inner[0])}, as [{example}]"
    if kind in SEQUENCES:
        return f"a list, each {described(inner[0])}, as [a,b]" if inner else "a list"
    if kind in PLAIN:
        return PLAIN[kind]
    if _is_text(hint):
        return "a path"
    names = " or ".join(cls.__name__ for cls in classes_in(hint))
    return f"the name of a class of {names}" if names else "another value"
