"""The gradient of a chunk of tasks as one compiled program."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from app.episode import Episode
from app.errors import InputError
from app.inner_loop.gradient_descent import INNER_GRADIENT_NORM
from app.inner_loop.observation import keep, observing
from app.inner_loop.params import Params
from app.runs.processes import is_rank_zero
from app.torch_internals import (
    CompilerFails,
    NoCompiler,
    TreeSpec,
    compile_program,
    tree_flatten,
    tree_unflatten,
    with_tensors,
)

Program = Callable[..., list[Tensor]]
ChunkGradient = Callable[[Params, Episode], tuple[tuple[Tensor, ...], Params]]
# The compiler knows no product that is written into a view.
DECOMPOSITIONS = {torch.ops.aten.bmm.out: lambda a, b, out: out.copy_(torch.bmm(a, b))}
# Kernels chosen by their time would make a resumed run add up in another order.
OPTIONS = {"cuda": {"triton.cudagraphs": True, "deterministic": True}}


class CompiledGradient:
    """An algorithm's `chunk_gradient`, traced and compiled at the first call with each shape of a chunk.

    What is traced are the operations that vmap, autograd and the derivatives written by hand come to: torch.compile's own tracer
    does not go through them. A chunk of fewer tasks than the first one, the last of a step, is not worth a program of its own.

    Args:
        algorithm: whose parameters and buffers the gradient depends on.
        gradient: its `chunk_gradient`, which depends on nothing else but the chunk: no random numbers, not how far the run is.
    """

    def __init__(self, algorithm: nn.Module, gradient: ChunkGradient):
        self._algorithm, self._gradient = algorithm, gradient
        self._num_tasks: int | None = None
        self._programs: dict[tuple, tuple[Program, TreeSpec]] = {}

    def __call__(self, params: Params, chunk: Episode) -> tuple[tuple[Tensor, ...], Params]:
        self._num_tasks = self._num_tasks or len(chunk.query_x)
        if len(chunk.query_x) < self._num_tasks:
            return self._gradient(params, chunk)
        tensors, structure = tree_flatten((params, dict(self._algorithm.named_buffers()), chunk))
        tensors, device = [tensor.detach() for tensor in tensors], chunk.query_x.device.type
        form = torch.is_autocast_enabled(device), *((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        if form not in self._programs:
            graph, results = self._trace(tensors, structure)
            self._programs[form] = compile_graph(graph, tensors, device), results
        program, results = self._programs[form]
        with torch.no_grad(), torch.autocast(device, enabled=False):  # the dtypes are settled in the program
            # Copies: a CUDA graph writes its next results where these are.
            gradient, metrics, observed = tree_unflatten([tensor.clone() for tensor in program(*tensors)], results)
        keep(observed)
        return gradient, metrics

    def _trace(self, tensors: list[Tensor], structure: TreeSpec) -> tuple[GraphModule, TreeSpec]:
        """A program of all tensors, and the structure of what it gives."""

        def flat(*tensors: Tensor) -> list[Tensor]:
            nonlocal results
            params, buffers, chunk = tree_unflatten(tensors, structure)
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
            with with_tensors(self._algorithm, params | buffers), observing(INNER_GRADIENT_NORM) as observed:
                leaves, results = tree_flatten((*self._gradient(params, chunk), observed))
            return leaves

        results = None
        return make_fx(flat, DECOMPOSITIONS, tracing_mode="fake")(*tensors), results


def compile_graph(graph: GraphModule, tensors: list[Tensor], device: str) -> Program:
    """A program for tensors of exactly these shapes.

    Raises:
        InputError: there is no compiler, or it fails.
    """
    if is_rank_zero():
        print("compiling the training step, which may take minutes ...", flush=True)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that no GPU is here is no news
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            return compile_program(graph, tensors, OPTIONS.get(device, {}))
    except NoCompiler as error:
        remedy = "install g++, set CXX to yours, or leave it out"
        raise InputError(f"--model.compile true needs a C++ compiler; {remedy}") from error
    except CompilerFails as error:
        said = next((line for line in str(error).splitlines() if "error" in line), "no reason given")
        remedy = "install what it misses, such as python3-dev, set CXX to another one, or leave it out"
        raise InputError(f"--model.compile true: the C++ compiler fails ({said}); {remedy}") from error
