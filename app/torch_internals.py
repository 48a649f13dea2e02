"""What torch has but does not promise, by ordinary names, so that `tests/test_internals.py` can say what broke."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch
from torch._functorch import pyfunctorch
from torch.autograd import forward_ad
from torch.nn.utils import stateless
from torch.utils import _pytree as pytree

# Nested dicts, tuples and lists as the list of what is in them, and back.
TreeSpec = pytree.TreeSpec
tree_flatten, tree_unflatten, tree_map = pytree.tree_flatten, pytree.tree_unflatten, pytree.tree_map

# One call for a whole list of tensors; those with an underscore change the first list in place.
norms_of_each, add_to_each, add_to_each_ = torch._foreach_norm, torch._foreach_add, torch._foreach_add_
divide_each = torch._foreach_div
copy_each_, lerp_each_ = torch._foreach_copy_, torch._foreach_lerp_

# The transforms of torch.func


class Vmap(NamedTuple):
    """A vmap that is around.

    Attributes:
        level: its number among the transforms.
        size: over how many it maps.
    """

    level: int
    size: int


def only_vmap() -> Vmap | None:
    """The vmap that is around; null without one, or with another transform of torch.func around."""
    interpreters = functorch.get_interpreter_stack()
    if not interpreters or len(interpreters) > 1 or interpreters[0].key() != functorch.TransformType.Vmap:
        return None
    vmap = functorch.CVmapInterpreterPtr(interpreters[0])
    return Vmap(vmap.level(), vmap.batchSize())


def without_transforms() -> AbstractContextManager:
    """Inside, operations run as if no transform were around."""
    return pyfunctorch.temporarily_pop_interpreter_stack()


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor stands for others, by a transform that is around."""
    return functorch.is_functorch_wrapped_tensor(tensor)


def mapped_axis(tensor: Tensor) -> int:
    """The axis of `mapped_tensor(tensor)` over which a vmap runs; negative where it does not run over this tensor."""
    return functorch.maybe_get_bdim(tensor)


def mapped_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor, over an axis of which a vmap runs."""
    return functorch.get_unwrapped(tensor)


def as_mapped(tensor: Tensor, axis: int, level: int) -> Tensor:
    """One of the slices of a whole tensor, as it is inside the vmap of that level."""
    return functorch._add_batch_dim(tensor, axis, level)


def set_parameter(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a tensor in the place of a parameter, by its name; `with_tensors` around it gives it out."""
    owner, _, own = name.rpartition(".")
    module.get_submodule(owner)._parameters[own] = tensor


def load_forward_mode() -> None:
    """Makes torch's forward mode ready, which compiles some of its rules by what torch itself calls deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.ones(()), torch.ones(()))


def with_tensors(module: nn.Module, tensors: dict[str, Tensor]) -> AbstractContextManager:
    """Inside, a module has these as its parameters and buffers, by their names."""
    return stateless._reparametrize_module(module, tensors)


# Forward mode


def with_slope(tensor: Tensor, slope: Tensor) -> Tensor:
    """The tensor as a function of a line, whose slope it has; inside the one `dual_level` that is around.

    `make_dual` would first compile formulas for layers that have none in forward mode, with a warning.
    """
    return torch._VF._make_dual(tensor, slope, level=0)


# The compiler, which takes a second to import


class NoCompiler(Exception):
    """There is no C++ compiler."""


class CompilerFails(Exception):
    """The C++ compiler fails, with what it said."""


def compile_program(graph: torch.fx.GraphModule, tensors: Sequence[Tensor], options: dict[str, Any]) -> Any:
    """The program of a graph for tensors of exactly these shapes.

    Args:
        graph: what is computed.
        tensors: inputs like those it will have.
        options: of the compiler.

    Raises:
        NoCompiler: there is none.
        CompilerFails: with what it said.
    """
    from torch._inductor import standalone_compile
    from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

    try:
        return standalone_compile(graph, tensors, dynamic_shapes="from_example_inputs", options={"config_patches": options})
    except InductorError as error:
        reason = error.inner_exception
        if isinstance(reason, InvalidCxxCompiler):
            raise NoCompiler from error
        if isinstance(reason, CppCompileError):
            raise CompilerFails(reason.output) from error
        raise


def fresh_compiler_cache() -> AbstractContextManager:
    """Inside, nothing is known of what was compiled before."""
    from torch._inductor.utils import fresh_cache

    return fresh_cache()
