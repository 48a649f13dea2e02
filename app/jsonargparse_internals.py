"""What jsonargparse has but does not promise, by an ordinary name, so that `tests/test_internals.py` can say what broke."""

from argparse import Action
from typing import Any

from jsonargparse import ArgumentParser, Namespace


def typed_options(parser: ArgumentParser) -> dict[str, tuple[Action, Any]]:
    """The options of a parser by their whole names, each with the type of its value, of which there is no public list."""
    options = [action for action in parser._actions if hasattr(action, "_typehint")]
    return {action.dest: (action, action._typehint) for action in options if not action.dest.endswith(".help")}


def parsed(parser: ArgumentParser, options: dict[str, Any]) -> Namespace:
    """The config that options make: each value is made what its type says, but all of them are not checked once more.

    Args:
        parser: of the options.
        options: complete and checked.
    """
    return parser.parse_object(options, _skip_validation=True)
