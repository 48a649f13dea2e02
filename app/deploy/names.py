"""What people call their classes."""

from collections.abc import Iterable
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
    found, spellings = [], {}
    for name in [*known, *(name for name in new if name not in known)]:
        other = spellings.setdefault(_spoken(name), name)
        if other != name and name in new:
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
