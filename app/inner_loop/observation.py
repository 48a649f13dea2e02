"""What is looked at inside a task, under vmap, without being its result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from app.inner_loop.task_stack import TaskStack

Observations = dict[str, list[Tensor]]
_wanted: ContextVar[Observations | None] = ContextVar("wanted", default=None)


@contextmanager
def observing(*names: str) -> Iterator[Observations]:
    """Inside, what `observe` is given under these names is kept in the order of the calls, each of shape (tasks, ...).

    Without names nothing is kept, and nothing is computed for it.
    """
    kept = {name: [] for name in names}
    token = _wanted.set(kept)
    try:
        yield kept
    finally:
        _wanted.reset(token)


def keep(observed: Observations) -> None:
    """Keeps what another `observing` has kept, where somebody is observing."""
    kept = _wanted.get() or {}
    for name, values in observed.items():
        if name in kept:
            kept[name] += values


def observe(name: str, value: Callable[[], Tensor]) -> None:
    """Keeps a value of one task, under the one vmap over tasks, where somebody is observing; else costs nothing.

    Under another transform of torch.func the value would be no number yet: it is then left out.
    """
    kept = _wanted.get()
    if kept is None or name not in kept:
        return
    tasks = TaskStack.around()
    if tasks is not None:
        kept[name].append(tasks.tasks_at(0, value().detach()))
