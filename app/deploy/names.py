"""What people call their classes."""

from collections.abc import Iterable
from typing import Any
from unicodedata import normalize

from app.errors import InputError
from app.learners.kept import Name

MANY = 8  # names that a message lists


def listed(names: list[Name]) -> str:
    """Names for a message."""
    shown = ", ".join(map(str, names[:MANY])) or "none"
    return f"{shown} and {len(names) - MANY} more" if len(names) > MANY else shown


def alike(known: list[Name], new: list[Name]) -> list[tuple[Name, Name]]:
    """Pairs of a new name and another that differ in case, spaces and signs alone."""
    found, spellings, added = [], {}, [name for name in new if name not in known]
    for name in [*known, *added]:
        other = spellings.setdefault(_spoken(name), name)
        if other != name and name in added:
            found.append((name, other))
    return found


def _spoken(name: Name) -> str:
    text = normalize("NFKD", str(name)).casefold()
    return "".join(sign for sign in text if sign.isalnum()) or text


def check_sortable(names: Iterable[Name]) -> None:
    """Raises an InputError where names have no order: they are numbered by it."""
    try:
        sorted(names)
    except TypeError as error:
        raise InputError(f"the names of classes cannot be sorted ({error}); give all as text or all as numbers") from error


def known_names(names: Iterable[Name], known: list[Name], noun: str) -> list[Name]:
    """Those of the names that are known, which these are as texts.

    Raises:
        InputError: one is not known.
    """
    found = {name: next((own for own in known if own == name or str(own) == str(name)), None) for name in names}
    if unknown := [name for name, own in found.items() if own is None]:
        raise InputError(f"--forget {unknown[0]}: it knows no such {noun}; it knows {listed(known)}")
    return list(found.values())


def known_task(known: list[Name], task: Name | None) -> Name:
    """The task of that name, which may be left out where there is one alone.

    Raises:
        InputError: it is not known, or is not said.
    """
    if task is None and len(known) == 1:
        return known[0]
    if task not in known:
        asked = "which task the queries are of is not said" if task is None else f"it knows no task {task!r}"
        raise InputError(f"{asked}; it knows {listed(known)}")
    return task


def method_name(algorithm: Any) -> str:
    """What an algorithm is called; that of a stream by its method."""
    return type(getattr(algorithm, "method", algorithm)).__name__
