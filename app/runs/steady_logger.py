"""Loggers that cannot go on: the disk is full, the network gone, a name cannot be written. They end no run."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from lightning.pytorch.loggers import Logger

from app.lightning_internals import no_experiment
from app.shown import only_shown

CALLS = ("log_hyperparams", "log_metrics", "log_graph", "log_image", "save", "after_save_checkpoint", "finalize")


def steady(logger: Logger) -> Logger:
    """The same logger, which leaves out what it cannot do, and says so in a line, once for each of its calls.

    Where it cannot even open its record, as without a disk or a network, it does nothing more.
    """
    logger.__class__ = _steady_class(type(logger))
    logger._left_out = set()
    return logger


def is_open(logger: Logger) -> bool:
    """Whether what a logger was given is recorded anywhere."""
    return _record_of(logger) not in getattr(logger, "_left_out", ())


def _record_of(logger: Logger) -> str:
    return f"the record of {type(logger).__name__}"


@cache
def _steady_class(kind: type[Logger]) -> type[Logger]:
    parts: dict[str, Any] = {name: _attempt(kind, name) for name in CALLS if hasattr(kind, name)}
    if isinstance(getattr(kind, "experiment", None), property):
        parts["experiment"] = property(_opened(kind))
    return type(kind.__name__, (kind,), parts | {"__module__": kind.__module__})


def _attempt(kind: type[Logger], name: str) -> Callable[..., Any]:
    @wraps(getattr(kind, name))
    def attempt(logger: Any, *args: Any, **kwargs: Any) -> Any:
        if is_open(logger):
            with only_shown(f"{name} of {kind.__name__}", logger._left_out):
                return getattr(kind, name)(logger, *args, **kwargs)

    return attempt


def _opened(kind: type[Logger]) -> Callable[[Any], Any]:
    def opened(logger: Any) -> Any:
        if is_open(logger):
            with only_shown(_record_of(logger), logger._left_out):
                return kind.experiment.fget(logger)
        return no_experiment()

    return opened
