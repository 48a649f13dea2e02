"""Networks that are built for the weights of a checkpoint need no published ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_restored: ContextVar[bool] = ContextVar("restored", default=False)


@contextmanager
def weights_of_checkpoint(there_is_one: bool = True) -> Iterator[None]:
    """Inside, where there is a checkpoint, networks are built without their published weights, whose file may be gone."""
    token = _restored.set(there_is_one)
    try:
        yield
    finally:
        _restored.reset(token)


def checkpoint_has_weights() -> bool:
    """Whether the weights of the networks that are built here follow from a checkpoint."""
    return _restored.get()
