"""Names that an option gives: one as a text, or several as a list."""

from collections.abc import Collection


def given_names(given: str | list[str], known: Collection[str]) -> list[str]:
    """The names of an option that takes one or several: `[year]` is a list of one unless something is called just that.

    Args:
        given: as it was typed.
        known: what there is to be named.
    """
    if not isinstance(given, str):
        return list(given)
    inside = given[1:-1].strip() if given.startswith("[") and given.endswith("]") else given
    return [inside if inside in known and given not in known else given]
