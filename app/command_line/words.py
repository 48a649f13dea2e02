"""Text as a person wrote it, and what it means: an option decides whether `1e3` is a number, a text or the name of a class."""

import re
from typing import Any

import yaml

NULL = re.compile(r"null|Null|NULL|~|")
TRUE = re.compile(r"true|True|TRUE|yes|Yes|YES|on|On|ON")
FALSE = re.compile(r"false|False|FALSE|no|No|NO|off|Off|OFF")
INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+")
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class Word(str):
    """Text without quotes, from the command line or from a YAML file."""


class _Reader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which nothing is a number yet: plain scalars become words, quoted ones text."""


_Reader.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merge keys alone
_Reader.add_constructor(
    "tag:yaml.org,2002:str",
    lambda loader, node: loader.construct_scalar(node) if node.style else Word(loader.construct_scalar(node)),
)


class _Writer(yaml.SafeDumper):
    """YAML that every reader takes for what it was: text that YAML 1.1 or 1.2 could read as something else is quoted."""


_Writer.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), list("-+.0123456789"))
_Writer.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+$"), ["0"])


def load(text: str) -> Any:
    """The content of a YAML text: mappings and lists of words and texts; a word where it is a plain scalar.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(str(text), _Reader)


def dump(content: Any) -> str:
    """YAML that holds the content in its order."""
    return yaml.dump(content, Dumper=_Writer, default_flow_style=False, allow_unicode=True, sort_keys=False)


def boolean(text: str) -> bool | None:
    """What YAML takes for true or false; null for anything else."""
    return True if TRUE.fullmatch(text) else False if FALSE.fullmatch(text) else None


def integer(text: str) -> int | None:
    """The whole number that a text is; null for anything else."""
    if not INTEGER.fullmatch(text):
        return None
    return int(text, 16) if text.startswith("0x") else int(text)


def number(text: str) -> float | None:
    """The number that a text is, `.nan` and `.inf` among them; null for anything else."""
    if NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float(text) if FLOAT.fullmatch(text) else None


def plain(content: Any) -> Any:
    """The content as YAML alone would have it, where no option says what its words are."""
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [plain(value) for value in content]
    if not isinstance(content, Word):
        return content
    if NULL.fullmatch(content):
        return None
    for read in (boolean, integer, number):
        if (value := read(content)) is not None:
            return value
    return str(content)
