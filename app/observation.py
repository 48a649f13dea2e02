"""What is looked at inside a task, under vmap, without being its result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor
from torch._C import _functorch

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


def observe(name: str, value: Callable[[], Tensor]) -> None:
    """Keeps a value of one task, under the one vmap over tasks, where somebody is observing; else costs nothing.

    Under another transform of torch.func the value would be no number yet: it is then left out.
    """
    kept = _wanted.get()
    if kept is None or name not in kept:
        return
    interpreters = _functorch.get_interpreter_stack()
    if not interpreters or len(interpreters) > 1 or interpreters[0].key() != _functorch.TransformType.Vmap:
        return
    tensor, tasks = value().detach(), _functorch.CVmapInterpreterPtr(interpreters[0]).batchSize()
    axis = _functorch.maybe_get_bdim(tensor)
    whole = _functorch.get_unwrapped(tensor).movedim(axis, 0) if axis >= 0 else tensor.expand(tasks, *tensor.shape)
    kept[name].append(whole)
