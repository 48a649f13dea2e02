"""What jsonargparse has but does not promise, by an ordinary name, so that `tests/test_internals.py` can say what broke."""

from argparse import Action
from typing import Any

from jsonargparse import ArgumentParser


def typed_options(parser: ArgumentParser) -> dict[str, tuple[Action, Any]]:
    """The options of a parser by their whole names, each with the type of its value, of which there is no public list."""
    options = [action for action in parser._actions if hasattr(action, "_typehint")]
    return {action.dest: (action, action._typehint) for action in options if not action.dest.endswith(".help")}
