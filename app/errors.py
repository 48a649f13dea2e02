"""The error that a person's input causes, as opposed to a defect of the program."""


class InputError(ValueError):
    """Wrong input: one line that names the option, both numbers and the remedy; `train.py` prints it without a traceback."""


def check_at_least(least: int, section: str, **options: float | None) -> None:
    """Raises an InputError where one of the options of a section is below `least`; null is always allowed."""
    for name, value in options.items():
        if value is not None and value < least:
            raise InputError(f"--{section}.{name} is {value}; give at least {least}")


def check_above_zero(section: str, **options: float | None) -> None:
    """Raises an InputError where one of the options of a section is not above 0; null is always allowed."""
    for name, value in options.items():
        if value is not None and not value > 0:
            raise InputError(f"--{section}.{name} is {value}; give a number above 0")
