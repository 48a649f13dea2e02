"""A command line as what it is: a verb, config files, and options in their order."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.command_line.section import Section, put
from app.command_line.words import Word
from app.errors import UsageError


class Words(list):
    """Several words after an option: a list where the option takes one."""


@dataclass
class Command:
    """What a person typed.

    Attributes:
        verb: null for none, which is a fit and then a test.
        configs: the config files, from the lowest to the highest.
        options: names without `--`, and their values.
        help: the arguments that ask for a help text, as they were given.
        prints_config: whether the resolved config is all that is asked for.
    """

    verb: str | None = None
    configs: list[str] = field(default_factory=list)
    options: list[tuple[str, Word | str | Words]] = field(default_factory=list)
    help: list[str] = field(default_factory=list)
    prints_config: bool = False

    @property
    def names_something(self) -> bool:
        """Whether there is a config, a model or a data set."""
        return bool(self.configs) or any(name.split(".")[0] in ("model", "data") for name, _ in self.options)

    def layer(self) -> Section:
        """The options as one layer; a class counts for its options wherever they stand."""
        layer = Section()
        for name, value in self.options:
            put(layer, [part for part in name.split(".") if part != "init_args"], value)
        return layer

    def for_help(self) -> list[str]:
        """The arguments for a parser that prints a help text: of a class in a class, the outer one has to be said, too."""
        outer = [f"--{name}={value}" for name, value in self.options if self.help[0].startswith(f"--{name}.")]
        return [*([self.verb] if self.verb else []), *outer, *self.help]


def read_command(args: list[str], verbs: Iterable[str]) -> Command:
    """Reads the arguments after the program's name.

    Args:
        args: the arguments; an option is followed by its value or values, or by `=` and its value.
        verbs: what may come first.

    Raises:
        UsageError: they are no command line.
    """
    command, waiting = Command(), list(args)
    if waiting and not waiting[0].startswith("-"):
        command.verb = waiting.pop(0)
        if command.verb not in verbs:
            names = ", ".join([*dict.fromkeys([*verbs, "predict", "learn"])])
            raise UsageError(f"unknown verb {command.verb}", f"valid names: {names}; without a verb: fit, and then test")
    while waiting:
        if not _is_option(waiting[0]):
            raise UsageError(f"unexpected {waiting[0]}; options begin with --")
        name, equals, value = waiting.pop(0).partition("=")
        values = [value] if equals else _values(waiting)
        if name in ("-h", "--help") or name.endswith(".help"):
            command.help += [name, *values]
        elif name == "--print_config":
            command.prints_config = True
        elif not values:
            raise UsageError(f"{name} has no value; give one after it")
        elif name in ("-c", "--config"):
            command.configs += values
        else:
            command.options.append((name.removeprefix("--"), _value(values)))
    return command


def _is_option(argument: str) -> bool:
    return argument.startswith("--") or argument.split("=")[0] in ("-c", "-h")


def _values(waiting: list[str]) -> list[str]:
    """Takes what stands before the next option."""
    values = []
    while waiting and not _is_option(waiting[0]):
        values.append(waiting.pop(0))
    return values


def _value(values: list[str]) -> Word | str | Words:
    """One word, or several; an empty text and the home folder are no null, as YAML would have it."""
    read = [value if value in ("", "~") else Word(value) for value in values]
    return read[0] if len(read) == 1 else Words(read)
