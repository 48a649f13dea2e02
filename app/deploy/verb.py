"""The verb `predict` as it is typed."""

from itertools import pairwise

from app.command_line.checked import Checked
from app.command_line.classes import options_of_parser
from app.command_line.command import Command, read_command
from app.command_line.parser import MetaParser
from app.deploy.command import Predict
from app.errors import UsageError


def predict(args: list[str]) -> int:
    """Runs the verb and returns the exit status.

    Args:
        args: the command line after the verb.
    """
    given = [*args, "--"]
    flags = [f"{one}=true" if one == "--transductive" and after.startswith("--") else one for one, after in pairwise(given)]
    command = read_command(["predict", *flags], ["predict"])
    parser = MetaParser(prog="train.py predict", description=(Predict.__doc__ or "").partition("Args:")[0])
    parser.add_class_arguments(Predict, sub_configs=False)
    if command.help:
        parser.parse_args(["--help"])
    if command.configs:
        raise UsageError("unknown option --config; the checkpoint alone says what the algorithm and the inputs are")
    of_method = {name.removeprefix("model."): value for name, value in command.options if name.startswith("model.")}
    own = Command(options=[(name, value) for name, value in command.options if not name.startswith("model.")])
    options = Checked(options_of_parser(parser), "all options: train.py predict --help").whole(own.layer())
    return Predict(**options).run(of_method)
