"""What the page of the results is written with."""

import textwrap
from collections.abc import Iterable

WIDTH = 130


def paragraph(text: str) -> str:
    """A text in lines."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def commands(lines: Iterable[str]) -> str:
    """Commands as they are typed."""
    return "\n".join(["```", *lines, "```"])


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table, without the columns that are empty in all rows."""
    kept = [position for position, name in enumerate(columns) if any(row[position] for row in rows)]
    lines = [[columns[position] for position in kept], ["---"] * len(kept)]
    lines += [[row[position].replace("|", "\\|") for position in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: Iterable[float | None] | None, digits: int) -> str:
    """A mean with its interval."""
    if value is None:
        return ""
    mean, ci95 = value
    if mean is None:
        return "not finite"
    return f"{mean:.{digits}f}" + (f" ± {ci95:.{digits}f}" if ci95 is not None else "")
