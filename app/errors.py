"""The error that a person's input causes, as opposed to a defect of the program."""


class InputError(ValueError):
    """Wrong input: one line that names the option, both numbers and the remedy; `train.py` prints it without a traceback."""
