"""jsonargparse, which builds what a command line describes and prints the help; what it is given has been read and checked."""

import re
from typing import Any, NoReturn

from jsonargparse import set_dumper, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from app.command_line import words
from app.errors import UsageError

AS_IT_IS = "as_it_is"  # a mode in which a text is that text: jsonargparse's own ones read each as YAML once more
HEADER = "# Options of a run.\n"
ATTEMPTS = "Errors: - "
KEY = re.compile(r'[Pp]arser key "(?:\w+\.)??([\w.]+)":?')


def _load(text: str) -> Any:
    """A text as it is, but for the options of a class, which jsonargparse writes and reads while it writes a config."""
    return words.plain(words.load(text)) if text.startswith(HEADER) else text


set_loader(AS_IT_IS, _load)
set_dumper(AS_IT_IS, lambda content: HEADER + words.dump(content))


class MetaParser(LightningArgumentParser):
    """A parser whose errors are short."""

    def __init__(self, *args: Any, parser_mode: str = AS_IT_IS, **kwargs: Any):
        super().__init__(*args, parser_mode=parser_mode, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # jsonargparse tries things out with such parsers
            super().error(message, ex)
        raise UsageError(shortened(message)) from ex


def shortened(message: str) -> str:
    """What jsonargparse says of a value: the option, and why the first of the types that it tried does not suit."""
    text = " ".join(message.split())
    if key := KEY.search(text):
        reason = text[key.end() :].strip()
        while ATTEMPTS in reason:
            reason, _, attempts = reason.partition(ATTEMPTS)
            reason = attempts.partition(" - ")[0] if not attempts.partition(" - ")[0].endswith("Errors:") else attempts
        text = f"--{key[1]}: {reason}"
    return text if len(text) <= 300 else f"{text[:300]} ..."
