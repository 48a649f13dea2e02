"""What a person reads when the command line is wrong."""

import re
import sys
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import NoReturn

from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import app.backbones
import app.continual.methods
from app.continual.base.method import ContinualMethod
from app.learners.learner import Learner, concrete_subclasses
from app.runs.processes import is_rank_zero
from datamodules.base.resumable import ResumableDataModule

BACKBONES = {
    name: f"app.backbones.{name}"
    for name, cls in vars(app.backbones).items()
    if isinstance(cls, type) and issubclass(cls, Module)
}
METHODS = {
    cls.__name__: f"{cls.__module__}.{cls.__name__}"
    for cls in concrete_subclasses(ContinualMethod)
    if cls.__module__.startswith("app.continual.methods.")
}
KEY = re.compile(r'[Pp]arser key "([^"]+)"')
PLAIN = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


class MetaParser(LightningArgumentParser):
    """A parser whose errors are at most three lines: the option, the valid names, the remedy."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # jsonargparse tries things out with such parsers
            super().error(message, ex)
        if is_rank_zero():
            print("\n".join(self._explain(" ".join(message.split()))), file=sys.stderr)
        self.exit(2)

    def _explain(self, text: str) -> list[str]:
        given = re.search(r"(?:Got|Given) value: (\[.*?\]|\S+?)\.?(?: |$)", text)
        # What comes after are the errors of the alternatives that nobody meant.
        text = re.split(r" - (?:Expected a <class 'NoneType'>|Problem with given class_path 'lightning.Callback')", text)[0]
        keys = [re.sub(r"^(fit|validate|test)\.", "", key) for key in KEY.findall(text)]
        option = "--" + ".".join(keys)
        classes = re.findall(r"class_path[ =]'([^']+)'", text)
        if match := re.search(r"[Uu]nrecognized arguments: ([^\s=]+)|does not accept option '(\S+)'", text):
            return self._unknown_option(match[1] or f"--{match[2]}", self._known_options())
        if match := re.search(r"Option '(\S+)' is not accepted", text):
            return self._option_of_another(option, match[1], classes[-1])
        if match := re.search(r"arguments are required: ([\w, ]+?)(?: -|$)", text):
            missing = f"{option}.{match[1]}" if keys else ", ".join(f"--{name}" for name in match[1].split(", "))
            return [f"error: {missing} is missing; give it", self._help_line()]
        if match := re.search(r"invalid choice: '(\S+)' \(choose from (.*)\)", text):
            verbs = f"{match[2]}, predict".replace("'", "")
            return [f"error: unknown verb {match[1]}", f"valid names: {verbs}; without a verb: fit, and then test"]
        if match := re.search(r"Multiple subclasses with name (\w+)\..*?: ([\w., ]+)\.", text):
            return [f"error: {option} {match[1]} is ambiguous; give one of {match[2]}"]
        if match := re.search(r"a path but (\S+\.ya?ml) either not accessible", text):
            return [f"error: {option} {match[1]}: there is no such file; give the path of a YAML file, or the name of a class"]
        wanted = re.search(r"Expected an? (?:<class '(int|float|bool|str)'>|typing\.(Literal\[.*?\]))", text)
        unknown = re.search(r"dot import path string: (\S+)|class_path '([^']+)': (?:Import|No|Unexpected)", text)
        if keys and unknown and not (wanted and wanted.start() < unknown.start()):
            name, names = unknown[1] or unknown[2], _class_names(keys[-1])
            near = get_close_matches(name.rsplit(".", 1)[-1], names, n=1, cutoff=0.4)
            lines = [f"error: unknown {option} {name}" + (f"; did you mean {near[0]}?" if near else "")]
            return lines + [f"valid names: {', '.join(names)}; or a YAML file"] * bool(names)
        if keys and wanted and given:
            names = [name for part in re.findall(r"Literal\[(.*?)\]", text) for name in re.findall(r"[^\s',]+", part)]
            kind = PLAIN[wanted[1]] if wanted[1] else f"one of {', '.join(dict.fromkeys(names))}"
            return [f"error: {option} is {given[1]}; give {kind}"]
        return [f"error: {text if len(text) <= 300 else text[:300] + ' ...'}", self._help_line()]

    def _unknown_option(self, unknown: str, known: list[str]) -> list[str]:
        near = get_close_matches(unknown, known, n=3, cutoff=0.5)
        return [f"error: unknown option {unknown}", f"nearest valid names: {', '.join(near) or 'none'}", self._help_line()]

    def _option_of_another(self, section: str, name: str, class_path: str) -> list[str]:
        """Explains an option that the chosen class does not have, but perhaps another one has."""
        cls = resolve_name(class_path)
        if cls is Module:
            return [f"error: {section}.{name} needs a class; give {section} {' or '.join(BACKBONES)} before it"]
        bases = [base for base in (Learner, ResumableDataModule) if issubclass(cls, base)]
        others = [other for base in bases for other in concrete_subclasses(base) if f"--x.{name}" in options_of(other, "x")]
        if not others:
            return self._unknown_option(f"{section}.{name}", options_of(cls, section.removeprefix("--")))
        owners = ", ".join(sorted(other.__name__ for other in others))
        return [f"error: {section}.{name} is an option of {owners}, not of {cls.__name__}", self._help_line()]

    def _known_options(self) -> list[str]:
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for section, base in (("model", Learner), ("data", ResumableDataModule)):
            known += [option for cls in concrete_subclasses(base) for option in options_of(cls, section)]
        return sorted({*known, *options_of(Trainer, "trainer")})

    def _help_line(self) -> str:
        verb = next((argument for argument in sys.argv[1:] if argument in ("fit", "validate", "test", "predict")), "fit")
        if verb == "predict":
            return "all options: train.py predict --help"
        return f"all options: train.py {verb} --help; of one class: train.py {verb} --model.help MAML"


def options_of(cls: type, section: str) -> list[str]:
    """The options of a class under that section."""
    parser = LightningArgumentParser()
    parser.add_class_arguments(cls, section, fail_untyped=False)
    return [option for action in parser._actions for option in action.option_strings if option.startswith(f"--{section}.")]


def _class_names(key: str) -> list[str]:
    """The class names that an option takes, as far as they are known."""
    bases = {
        "model": Learner,
        "data": ResumableDataModule,
        "optimizer": Optimizer,
        "lr_scheduler": LRScheduler,
        "trainer.logger": Logger,
        "trainer.callbacks": Callback,
    }
    if key in ("backbone", "method"):
        return sorted(BACKBONES if key == "backbone" else METHODS)
    names = {cls.__name__ for cls in concrete_subclasses(bases[key])} if key in bases else set()
    return sorted(name for name in names if not name.startswith("_"))
