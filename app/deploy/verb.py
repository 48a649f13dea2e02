"""A verb beside Lightning's own: the constructor of a class is its command line."""

from typing import Any

from app.command_line.checked import Checked
from app.command_line.classes import options_of_parser
from app.command_line.command import Command, read_command
from app.command_line.parser import MetaParser
from app.errors import UsageError

OF_MODEL = "model."


class Verb:
    """What is typed after a verb.

    Args:
        name: of the verb.
        does: the class whose constructor takes the options; its docstring is the help text.
        no_config: why there is no option --config.
        asked: what is typed before --help for this text; null for the verb alone.
    """

    def __init__(self, name: str, does: type, no_config: str, asked: str | None = None):
        self.name, self.does, self.no_config = name, does, no_config
        self.help = f"all options: train.py {asked or name} --help"

    def read(self, args: list[str]) -> Command:
        """What was typed; a help text is printed, and ends the program."""
        command = read_command([self.name, *args], [self.name])
        if command.help:
            self._parser().parse_args(["--help"])
        if command.configs:
            raise UsageError(f"unknown option --config; {self.no_config}")
        return command

    def options(self, command: Command) -> dict[str, Any]:
        """The arguments of the class."""
        return Checked(options_of_parser(self._parser()), self.help).whole(command.layer())

    def _parser(self) -> MetaParser:
        parser = MetaParser(prog=f"train.py {self.name}", description=(self.does.__doc__ or "").partition("Args:")[0])
        parser.add_class_arguments(self.does, sub_configs=False)
        return parser


def without_model(command: Command) -> tuple[Command, dict[str, Any]]:
    """The options that are the verb's own, and those of the algorithm, without `model.`."""
    own = [(name, value) for name, value in command.options if not name.startswith(OF_MODEL)]
    of_model = {name.removeprefix(OF_MODEL): value for name, value in command.options if name.startswith(OF_MODEL)}
    return Command(options=own), of_model
