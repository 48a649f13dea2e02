"""Pieces of HTML."""

from html import escape


def table(columns: list[str], rows: list[list[str]], kind: str = "wide", style: str = "") -> str:
    """A table that scrolls in its own box where it is too wide, or, of kind tall, too long.

    Args:
        columns: HTML of the column heads.
        rows: HTML of the cells; a cell that begins with `<td` brings its own tag.
        kind: wide or tall.
        style: class of the table.
    """
    head = "".join(column if column.startswith("<th") else f"<th>{column}" for column in columns)
    body = "".join("<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}" for cell in row) + "</tr>" for row in rows)
    return f'<div class="{kind}"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def swatch(colour: int, label: str) -> str:
    """The name of a run with its colour."""
    return f'<span class="swatch" style="--c: var(--run-{colour % 8})">{escape(label)}</span>'


def number(value: float) -> str:
    """A count with separators, or a number to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
