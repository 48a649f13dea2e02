"""The command line before it is parsed, and what a person reads when it is wrong."""

import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

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


class MetaParser(LightningArgumentParser):
    """A parser whose errors are at most three lines: the option, the valid names, the remedy."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # jsonargparse tries things out with such parsers
            super().error(message, ex)
        if is_rank_zero():
            print("\n".join(self._explain(message)), file=sys.stderr)
        self.exit(2)

    def _explain(self, message: str) -> list[str]:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        text = " ".join(lines)
        if match := re.search(
            r"(?:Unrecognized arguments|unrecognized arguments|No action for key)[^-\w\"]*\"?([\w.\-=/ ]+)", text
        ):
            unknown = match[1].split()[0].split("=")[0]
            known = self._known_options()
            near = get_close_matches("--" + unknown.lstrip("-"), known, n=3, cutoff=0.5)
            return [
                f"error: unknown option {unknown}",
                f"nearest valid names: {', '.join(near) or 'none is near'}",
                self._help_line(),
            ]
        for section, base in (("model", MetaAlgorithm), ("data", EpisodicDataModule)):
            if match := re.search(
                rf"key [\"']?(?:\w+\.)?{section}[\"']?:.*?(?:import path|class|value)[^\w]*[\"']?([\w./]+)[\"']?", text
            ):
                names = [cls.__name__ for cls in _concrete_subclasses(base)]
                given = re.search(r"[Ii]mport path (\S+)|Unexpected import path format: (\S+)|Given value: (\S+)", text)
                word = next((group for group in given.groups() if group), match[1]).strip("'\"") if given else match[1]
                if word.rsplit(".", 1)[-1] not in names:
                    near = get_close_matches(word, names, n=1, cutoff=0.4)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    return [
                        f"error: unknown --{section} {word}{hint}",
                        f"valid names: {', '.join(sorted(names))}; or a YAML file",
                    ]
        short = text if len(text) <= 400 else text[:400] + " ..."
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


def _concrete_subclasses(base: type) -> list[type]:
    found = []
    for cls in base.__subclasses__():
        unwritten = any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))
        found += [cls] * (not unwritten) + _concrete_subclasses(cls)
    return found
