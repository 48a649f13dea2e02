"""Class names that a file gives: looked up among the classes that are there, never imported."""

from collections.abc import Iterator
from typing import Any

from lightning import LightningDataModule, LightningModule
from torch import nn, optim

from app.errors import InputError

CHOSEN = ("backbone", "modulator", "method", "optimizer", "lr_scheduler")  # options that may be the name of a class by itself
BASES = (LightningModule, LightningDataModule, nn.Module, optim.Optimizer, optim.lr_scheduler.LRScheduler)
OURS = ("app.", "datamodules.", "torch.optim.")


def known_class(path: str, source: str) -> type:
    """The class of ours, or of torch's optimisers, that a file calls by this path.

    Args:
        path: such as app.backbones.Conv4: the module that defines the class, or a package above it, and its name.
        source: what gives the path, for the message.

    Raises:
        InputError: there is none.
    """
    package, _, name = str(path).rpartition(".")
    for cls in (cls for base in BASES for cls in _subclasses(base)):
        if cls.__name__ == name and f"{cls.__module__}.".startswith(f"{package}.") and cls.__module__.startswith(OURS):
            return cls
    raise InputError(
        f"{source} asks for {path}, which is no method, network, data set or optimiser of this version; do not trust it"
    )


def check_classes(config: Any, source: str) -> None:
    """Raises an InputError where options, in nested mappings, name a class that is none of ours.

    Args:
        config: of a method, as a checkpoint has it.
        source: what gives it, for the message.
    """
    for path in _class_paths(config):
        known_class(path, source)


def _class_paths(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        for name, value in config.items():
            if name == "class_path" or (name in CHOSEN and isinstance(value, str)):
                yield value
            else:
                yield from _class_paths(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _class_paths(value)


def _subclasses(base: type) -> Iterator[type]:
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)
