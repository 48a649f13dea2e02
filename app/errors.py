"""The error that a person's input causes, as opposed to a defect of the program."""

from math import inf, isfinite


class InputError(ValueError):
    """Wrong input: one line that names the option, both numbers and the remedy; `train.py` prints it without a traceback."""


class UsageError(InputError):
    """A command line that cannot be understood: at most three lines, the first of them what is wrong.

    Args:
        lines: one by one.
    """

    def __init__(self, *lines: str):
        super().__init__("\n".join(" ".join(line.split()) for line in lines))


def cause(error: BaseException | None, *kinds: type[BaseException]) -> BaseException | None:
    """The first of these kinds among an error and its causes, or null: jsonargparse wraps the errors of constructors."""
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__
    return error


def check_at_least(least: int, section: str, *, or_null: str = "", **options: float | None) -> None:
    """Raises an InputError where one of the options of a section is below `least`; null is always allowed.

    Args:
        least: what is allowed.
        section: what stands before the options' names.
        or_null: what null is for, where the error is to offer it.
        options: by their names.
    """
    for name, value in options.items():
        if value is not None and not value >= least:
            null = f", or null {or_null}" if or_null else ""
            raise InputError(f"--{section}.{name} is {value}; give at least {least}{null}")


def check_above_zero(section: str, **options: float | None) -> None:
    """Raises an InputError where one of the options of a section is not above 0; null is always allowed."""
    for name, value in options.items():
        if value is not None and not value > 0:
            raise InputError(f"--{section}.{name} is {value}; give a number above 0")


def check_not_negative(section: str, **options: float) -> None:
    """Raises an InputError where one of the options of a section is below 0 or not finite."""
    for name, value in options.items():
        if not 0 <= value < inf:
            raise InputError(f"--{section}.{name} is {value}; give a number of at least 0")


def check_finite(section: str, **options: float | None) -> None:
    """Raises an InputError where one of the options of a section is not finite; null is always allowed."""
    for name, value in options.items():
        if value is not None and not isfinite(value):
            raise InputError(f"--{section}.{name} is {value}; give a finite number")
