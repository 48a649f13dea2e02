"""The YAML files that a command line names, and those that they name."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from app.command_line import words
from app.command_line.section import CLASSES, Section, from_mapping, group, on_top, unpacked
from app.command_line.values import URL, Elsewhere
from app.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def is_file(name: Any) -> bool:
    """Whether a name in the place of a class is that of a YAML file."""
    return isinstance(name, str) and name.endswith((".yaml", ".yml"))


def read_config(path: str) -> Section:
    """All options of a config file, and of the files that it gives for a model, a data set or the trainer."""
    return with_files(group(_mapping(path, "--config"), path), path)


def with_files(layer: Section, beside: str | None = None) -> Section:
    """The layer with its model, its data and its trainer as sections, those that are files with their content.

    Args:
        layer: options of a command line or a config.
        beside: the config that they stand in; what it names is looked for beside it, too.
    """
    options = {name: value for name, value in layer.options.items() if value != ""}  # a section without content is none
    for name in (*CLASSES, "trainer"):
        value = unpacked(options.get(name))
        if isinstance(value, dict):
            value = group(value, beside)
        elif isinstance(value, str):
            value = Section(value)
        if isinstance(value, Section):
            options[name] = named_by_file(value, name, beside) if is_file(value.name) else value
    return Section(layer.name, options, layer.file)


def named_by_file(section: Section, place: str, beside: str | None) -> Section:
    """A section whose class, or options, are those of a YAML file; what is said beyond it counts.

    Args:
        section: its name is the file's.
        place: name of the option.
        beside: the config that names it; null for the command line.
    """
    near = Path(beside or ".").expanduser().parent / section.name
    path = str(near if near.exists() else section.name)
    content = _mapping(path, f"--{place}")
    below = group(content, path) if place == "trainer" else from_mapping(content, path)
    if not isinstance(below, Section) or (place != "trainer" and below.name is None):
        raise InputError(f"--{place} {path} names no class; give a YAML file with class_path, and init_args where there are some")
    return on_top(below, Section(None, section.options, section.file, section.untyped), place, lambda _: None)


def _mapping(name: str, option: str) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        InputError: it cannot be read as a mapping.
    """
    if URL.match(name):
        raise InputError(f"{option} is {name}, {Elsewhere.SAID}")
    path = Path(name).expanduser()
    try:
        content = words.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        files = {file.stem: file for file in sorted(CONFIGS.rglob("*.yaml"))}
        near = [os.path.relpath(files[stem]) for stem in get_close_matches(path.stem, files, n=3, cutoff=0.4)]
        hint = f"the nearest are {', '.join(sorted(near))}" if near else f"there are some in {os.path.relpath(CONFIGS)}"
        raise InputError(f"{option} {name} does not exist; {hint}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{option} {name} is not valid YAML at line {line}: {error.problem}; correct it") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{option} {name} cannot be read ({error}); give a YAML file") from error
    if not isinstance(content, dict):
        kind = "is empty" if content in (None, "") else f"holds a {'list' if isinstance(content, list) else 'text'}"
        raise InputError(f"{option} {name} {kind}; give a YAML file of options such as `trainer: {{max_steps: 100}}`")
    return content
