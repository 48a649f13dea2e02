"""The pages that people read, README.md and docs/: their headings, links, code, and the commands and files in their blocks."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from helpers.command_line import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAME_OF_FILE = re.compile(r"\*\*`([^`]+)`\*\*")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: that it stands on.
        line: of its fence, from 1.
        language: bash, python or yaml.
        text: its content.
        file: the file of which it is the content, where the line above names one: **`path`**.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Command(NamedTuple):
    """A line that a person types.

    Attributes:
        place: page and line.
        text: the command.
    """

    place: str
    text: str


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found, title = [], None
    for token in tokens(page):
        if token.type == "fence":
            name = NAME_OF_FILE.fullmatch(title or "")
            found.append(Block(page, token.map[0] + 1, token.info, token.content, name and name[1]))
        if token.type == "inline":
            title = token.content
        elif token.type != "paragraph_close":  # a name stands right above its block
            title = None
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a block: its lines, of a file those that start train.py."""
    lines = enumerate(block.text.splitlines(), start=block.line + 1)
    typed = ((number, line) for number, line in lines if line.strip() and not line.startswith("#"))
    place = block.page.relative_to(ROOT)
    return [Command(f"{place}:{number}", line) for number, line in typed if not block.file or "train.py" in line]


def inline(page: Path, kind: str) -> Iterator[Token]:
    """The parts of the text of a kind, such as `code_inline`."""
    for token in tokens(page):
        yield from (part for part in token.children or [] if part.type == kind)


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead, but for addresses on the web."""
    found = [part.attrs["href"] for part in inline(page, "link_open")] + [part.attrs["src"] for part in inline(page, "image")]
    return [str(target) for target in found if not re.match(r"\w+:", str(target))]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page."""
    found: list[str] = []
    for token, following in pairwise(tokens(page)):
        if token.type == "heading_open":
            text = "".join(part.content for part in following.children or [] if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            again = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
            found.append(f"{slug}-{again}" if again else slug)
    return set(found)
