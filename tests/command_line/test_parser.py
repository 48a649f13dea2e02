"""What is left of jsonargparse: the options of a class, texts that stay texts, and its own messages."""

import pytest

from app.command_line.classes import Option, options_of
from app.command_line.parser import MetaParser, shortened
from app.errors import UsageError


class Inner:
    def __init__(self, size: int):
        self.size = size


class Outer:
    def __init__(self, inner: Inner | None = None, *, depth: int = 3):
        self.inner, self.depth = inner, depth


def test_options_of_a_class():
    assert options_of(Outer) == {"inner": Option(Inner | None), "depth": Option(int, 3)}
    assert options_of(Inner) == {"size": Option(int, required=True)} and options_of(Inner, 1) == {}


@pytest.mark.parametrize(
    "value, reason",
    [
        ({"class_path": "Inner", "init_args": {"size": "three"}}, "Expected a <class 'int'>"),
        ({"class_path": "Inner", "init_args": {"sise": 3}}, "Option 'sise' is not accepted"),
        ({"class_path": "app.Nothing"}, "app.Nothing"),
    ],
)
def test_a_message_of_jsonargparse_begins_with_the_option(value, reason):
    """A failure says that this version of jsonargparse words its messages otherwise."""
    parser = MetaParser()
    parser.add_class_arguments(Outer, "outer")
    with pytest.raises(UsageError) as error:
        parser.parse_object({"outer": {"inner": value}})
    message = str(error.value)
    assert message.startswith("--outer.inner: ") and reason in message and "\n" not in message and "NoneType" not in message


def test_a_long_message_is_cut():
    assert shortened("x" * 1000) == f"{'x' * 300} ..."


def test_a_text_stays_that_text_inside_jsonargparse():
    """A failure says that jsonargparse reads texts again, whatever the mode of the parser."""

    class Named:
        def __init__(self, name: str, names: list[str] | str, other: str | None = None):
            pass

    parser = MetaParser()
    parser.add_class_arguments(Named)
    given = {"name": "1e-3", "names": "[Ca]", "other": "# rooms"}
    parsed = parser.parse_object(given)
    assert parsed.as_dict() == given
    assert 'name: "1e-3"' in parser.dump(parsed).replace("'", '"')
