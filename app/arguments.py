"""The command line before it is parsed, and what a person reads when it is wrong."""

import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from app.algorithm import MetaAlgorithm
from app.run import is_rank_zero
from datamodules.episodic import EpisodicDataModule

FIRST_RUN = Path(__file__).parent.parent / "configs" / "experiment" / "glyphs_maml_5w1s.yaml"


def with_defaults(args: list[str], verbs: Any) -> tuple[bool, list[str]]:
    """The arguments with a verb, and whether there was none.

    Without a config, model or data the run is the one of the README. A model or data set named beside a config replaces the
    config's whole section, instead of keeping the options that the two classes happen to share.
    """
    verb = next((argument for argument in args if argument in verbs), None)
    if args and args[0] in ("-h", "--help"):
        return False, args
    if verb is None and (not args or args[0].startswith("-")):
        named = ("--config", "-c", "--model", "--data")
        if not any(argument.split("=")[0].split(".")[0] in named for argument in args):
            args = ["--config", str(FIRST_RUN), *args]
        return True, ["fit", *_replace_sections(args)]
    return False, _replace_sections(args)


def _replace_sections(args: list[str]) -> list[str]:
    args = [
        part
        for argument in args
        for part in (argument.split("=", 1) if re.match(r"--(config|model|data)=", argument) else [argument])
    ]
    for section in ("model", "data"):
        if f"--{section}" not in args[:-1]:
            continue
        named = args[args.index(f"--{section}") + 1]
        for position in range(1, len(args)):
            if args[position - 1] == "--config" and Path(args[position]).is_file():
                config = yaml.safe_load(Path(args[position]).read_text())
                old = config.get(section) if isinstance(config, dict) else None
                if isinstance(old, dict) and str(old.get("class_path")).rsplit(".", 1)[-1] != named.rsplit(".", 1)[-1]:
                    del config[section]
                    if is_rank_zero():
                        print(
                            f"--{section} {named} replaces the {section} of {args[position]} with all its options",
                            file=sys.stderr,
                        )
                    args = [*args[:position], yaml.safe_dump(config), *args[position + 1 :]]
    return args


KEY = re.compile(r'[Pp]arser key "([^"]+)"')


class MetaParser(LightningArgumentParser):
    """A parser whose errors are at most three lines: the option, the valid names, the remedy."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # jsonargparse tries things out with such parsers
            super().error(message, ex)
        if is_rank_zero():
            print("\n".join(self._explain(message)), file=sys.stderr)
        self.exit(2)

    def _explain(self, message: str) -> list[str]:
        text = " ".join(message.split())
        keys = [key.removeprefix("fit.").removeprefix("validate.").removeprefix("test.") for key in KEY.findall(text)]
        option = "--" + ".".join(keys)
        if match := re.search(r"[Uu]nrecognized arguments: (\S+)|Option '(\S+)' is not accepted", text):
            unknown = match[1].split("=")[0] if match[1] else f"{option}.{match[2]}"
            near = get_close_matches(unknown, self._known_options(), n=3, cutoff=0.5)
            return [f"error: unknown option {unknown}", f"nearest valid names: {', '.join(near) or 'none'}", self._help_line()]
        if keys and (
            match := re.search(r"dot import path string: (\S+)|given class_path '([^']+)': (?:Import|No|Unexpected)", text)
        ):
            given = match[1] or match[2]
            names = _names(keys[-1])
            near = get_close_matches(given.rsplit(".", 1)[-1], names, n=1, cutoff=0.4)
            lines = [f"error: unknown {option} {given}" + (f"; did you mean {near[0]}?" if near else "")]
            return lines + [f"valid names: {', '.join(names)}; or a YAML file"] * bool(names)
        if keys and (match := re.search(r"Expected an? (.+?)\.? Got value: (\S+)", text)):
            wanted = re.sub(r"<class '([\w.]+)'>|typing\.", lambda part: part[1] or "", match[1]).replace("Literal", "one of ")
            return [f"error: {option} is {match[2]}; give {wanted}"]
        short = text if len(text) <= 300 else text[:300] + " ..."
        return [f"error: {short}", self._help_line()]

    def _known_options(self) -> list[str]:
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for section, base in (("model", MetaAlgorithm), ("data", EpisodicDataModule)):
            for cls in _concrete_subclasses(base):
                parser = LightningArgumentParser()
                parser.add_class_arguments(cls, section, fail_untyped=False)
                known += [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        return sorted(set(known))

    def _help_line(self) -> str:
        verb = next((argument for argument in sys.argv[1:] if argument in ("fit", "validate", "test")), "fit")
        return f"all options: train.py {verb} --help; of one class: train.py {verb} --model.help MAML"


def _names(key: str) -> list[str]:
    """The class names that an option takes, as far as they are known."""
    bases = {
        "model": MetaAlgorithm,
        "data": EpisodicDataModule,
        "optimizer": Optimizer,
        "lr_scheduler": LRScheduler,
        "logger": Logger,
    }
    if key == "backbone":
        return ["Conv4", "MLP"]
    names = {cls.__name__ for cls in _concrete_subclasses(bases[key])} if key in bases else set()
    return sorted(name for name in names if not name.startswith("_"))


def _concrete_subclasses(base: type) -> list[type]:
    found = []
    for cls in base.__subclasses__():
        unwritten = any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))
        found += [cls] * (not unwritten) + _concrete_subclasses(cls)
    return found
