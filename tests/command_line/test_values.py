"""What a word is, by the type of the option that it is given to; a text is always that text."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
import yaml
from torch import Tensor
from torch.optim import Optimizer

from app.command_line.classes import classes_in
from app.command_line.section import Section
from app.command_line.values import Mismatch, described, value_of
from app.command_line.words import Word, dump, load, plain

# Whatever YAML 1.1 or 1.2 takes for a number, a boolean, a date or nothing, and what it cannot read at all.
WORDS = """
1e5 1e-3 7774e139 0x10 0o17 010 1_000 12:30:00 on no null ~ nan .nan .inf 2026-01-01 true 5way {a} a,b -5 --x & * ! % @ ' "
"quoted" é {a: key: ? - s3://bucket/x ~/pictures [a [Ca] pH:1 a#b
"""
TEXTS = [*WORDS.split(), "# rooms", "pH: 1", " a ", "- a", "{a: b", "a #b", "a: b: c", "", "two\nlines"]
VALUES = [0, -3, 1.5, 1e-05, 1e300, math.inf, True, None, [], {}, [1, [2.5, None]], {"a": {}}]


def value(word: Any, hint: Any) -> Any:
    return value_of(Word(word) if isinstance(word, str) else word, hint, lambda section: section)


def test_a_text_option_takes_any_text():
    for text in TEXTS:
        assert value(text, str) == text and type(value(text, str)) is str
        assert value(text, list[str] | str) == text
        assert value_of(text, str | None, None) == text  # quoted, as a config has it


def test_what_is_written_is_read_back():
    for content in (*TEXTS, *VALUES):
        whole = {"a": content, "b": [content, {"c": content}]} | ({content: 1} if isinstance(content, str) else {})
        assert plain(load(dump(whole))) == yaml.safe_load(dump(whole)) == whole  # by anybody else, too


PRECISION = Union[Literal[64, 32], Literal["64", "bf16-mixed"], None]  # noqa: UP007  # as Lightning writes it
READ = [
    ("3", int, 3),
    ("1_000", int, 1000),
    ("-1", int, -1),
    ("3", float, 3.0),
    ("1e-3", float, 0.001),
    (".5", float, 0.5),
    ("1e5", float | Tensor, 1e5),
    ("yes", bool, True),
    ("null", Optional[float], None),  # noqa: UP045
    ("null", str, "null"),
    ("null", str | None, None),
    ("3", Union[int, float], 3),  # noqa: UP007
    ("0.5", int | float | str, 0.5),
    ("auto", list[int] | str | int, "auto"),
    ("2", list[int] | str | int, 2),
    ("[0,1]", list[int] | str | int, [0, 1]),
    ("0,1", list[int] | str | int, "0,1"),
    ("32", PRECISION, 32),
    ("bf16-mixed", PRECISION, "bf16-mixed"),
    ("warn", bool | Literal["warn"] | None, "warn"),
    ("[3,7]", tuple[int, int], [3, 7]),
    ("(3,7)", tuple[int, int], [3, 7]),
    ("3,7", tuple[int, int], [3, 7]),
    ("3 7", tuple[int, int], [3, 7]),
    ([Word("3"), Word("7")], tuple[int, int], [3, 7]),
    ("7", list[int], [7]),
    ("[1960, 1e3]", list[str] | str, ["1960", "1e3"]),
    ('["# rooms", "[Ca]"]', list[str] | str, ["# rooms", "[Ca]"]),
    ("{minutes: 5}", str | dict[str, int], {"minutes": 5}),
    ("Adam", Callable[[Iterable], Optimizer], Section("Adam")),
    ("false", Optimizer | Iterable[Optimizer] | bool | None, False),
    ("[]", list[Optimizer] | Optimizer | None, []),
    ("[Adam]", list[Optimizer] | Optimizer | None, [Section("Adam")]),
    ("~/x", str | Path | None, str(Path.home() / "x")),
    ("[Ca]", list[str] | str, "[Ca]"),
    ("[0]", list[int] | str | int, [0]),
    ("s3://~/x", str, "s3://~/x"),
    ("3", Any, 3),
]


@pytest.mark.parametrize("word, hint, expected", READ, ids=str)
def test_a_word_is_what_its_option_takes(word, hint, expected):
    found = value(word, hint)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "word, hint, wanted",
    [
        ("three", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("nan", float | Tensor, "a number"),
        ("maybe", bool, "true or false"),
        ("hed", Literal["all", "head"], "one of all, head"),
        ("12", PRECISION, "one of 64, 32, bf16-mixed"),
        ("7", tuple[int, int], "two values, each a whole number, as [3,5]"),
        ("[1", list[float], "a list, each a number, as [a,b]"),
    ],
)
def test_a_value_of_another_kind(word, hint, wanted):
    with pytest.raises(Mismatch):
        value(word, hint)
    assert described(hint) == wanted


def test_the_classes_of_an_option():
    assert classes_in(Optional[Callable[[Iterable, int], Optimizer]]) == {Optimizer: 2}  # noqa: UP045
    assert classes_in(list[Optimizer] | Optimizer | str | None) == {Optimizer: 0}
    assert classes_in(float | Tensor | Literal["a"] | dict[str, int] | Path) == {}
