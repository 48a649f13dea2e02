"""What is used of libraries without being promised: where a new version breaks it, one line says which, and what is used."""

import ast
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import pytest
from helpers.command_line import ROOT

INTERNALS = ("app/torch_internals.py", "app/lightning_internals.py", "app/jsonargparse_internals.py")


@contextmanager
def uses(library: str, what: str) -> Iterator[None]:
    """Whatever fails inside becomes one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        pytest.fail(f"{library} {version(library)} breaks {what} ({reason})", pytrace=False)


# torch


def only_vmap() -> None:
    import torch

    from app.torch_internals import only_vmap

    seen = []
    torch.vmap(lambda x: seen.append(only_vmap()) or x)(torch.zeros(3))
    torch.vmap(torch.func.grad(lambda x: seen.append(only_vmap()) or x))(torch.zeros(3))
    assert seen[0].size == 3 and seen[1] is None and only_vmap() is None


def mapped_tensors() -> None:
    """A layer that is computed on the tasks of a vmap as one stack."""
    import torch

    from app.torch_internals import as_mapped, is_transformed, mapped_axis, mapped_tensor, only_vmap, without_transforms

    def doubled(x: torch.Tensor) -> torch.Tensor:
        level = only_vmap().level
        with without_transforms():
            whole, axis = mapped_tensor(x), mapped_axis(x)
            assert is_transformed(x) and not is_transformed(whole)
            assert (whole.shape, axis, only_vmap(), mapped_axis(whole)) == ((2, 3), 1, None, -1)
            return as_mapped(2 * whole, axis, level)

    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(torch.vmap(doubled, in_dims=1, out_dims=1)(x), 2 * x)


def with_tensors() -> None:
    import torch

    from app.torch_internals import with_tensors

    layer, weight = torch.nn.Linear(1, 1, bias=False), torch.full((1, 1), 7.0)
    with with_tensors(layer, {"weight": weight}):
        assert layer(torch.ones(1, 1)).item() == 7
    assert layer.weight is not weight


def set_parameter() -> None:
    """A tensor that is put in a parameter's place is given out by `with_tensors`."""
    import torch

    from app.torch_internals import set_parameter, with_tensors

    layer, weight = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False)), {"0.weight": torch.full((1, 1), 7.0)}
    before = layer[0].weight
    with with_tensors(layer, weight):
        set_parameter(layer, "0.weight", 2 * layer[0].weight)
        assert layer(torch.ones(1, 1)).item() == 14
    assert weight["0.weight"].item() == 14 and layer[0].weight is before


def load_forward_mode() -> None:
    """Once it is loaded, torch warns of nothing."""
    import torch
    from torch.autograd import forward_ad

    from app.torch_internals import load_forward_mode

    load_forward_mode()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(3.0), torch.tensor(1.0))
        assert forward_ad.unpack_dual(dual**2).tangent.item() == 6


def trees() -> None:
    import torch

    from app.torch_internals import TreeSpec, tree_flatten, tree_map, tree_unflatten

    tree = {"a": torch.zeros(1), "b": (torch.ones(1), [torch.ones(2)])}
    leaves, spec = tree_flatten(tree)
    assert isinstance(spec, TreeSpec) and [len(leaf) for leaf in leaves] == [1, 1, 2]
    assert tree_unflatten([1, 2, 3], spec) == {"a": 1, "b": (2, [3])} == tree_unflatten([1, 2, 3], tree_flatten(tree)[1])
    assert tree_map(len, tree) == {"a": 1, "b": (1, [2])}


def lists_of_tensors() -> None:
    import torch

    from app import torch_internals as internals

    def lists() -> list[list[torch.Tensor]]:
        return [[torch.tensor([3.0, 4.0]), torch.tensor([1.0])], [torch.tensor([1.0, 2.0]), torch.tensor([5.0])]]

    def values(tensors: list[torch.Tensor]) -> list[list[float]]:
        return [tensor.tolist() for tensor in tensors]

    a, b = lists()
    assert values(internals.norms_of_each(a)) == [5, 1]
    assert values(internals.add_to_each(a, b)) == [[4, 6], [6]]
    assert values(internals.divide_each(a, 2)) == [[1.5, 2], [0.5]]
    for change, expected in (
        (lambda a, b: internals.add_to_each_(a, b, alpha=-1), [[2, 2], [-4]]),
        (internals.copy_each_, [[1, 2], [5]]),
        (lambda a, b: internals.lerp_each_(a, b, 0.5), [[2, 3], [3]]),
    ):
        a, b = lists()
        change(a, b)
        assert values(a) == expected


def slopes() -> None:
    import torch
    from torch.autograd.forward_ad import dual_level, unpack_dual

    from app.torch_internals import with_slope

    with dual_level():
        assert unpack_dual(with_slope(torch.tensor(3.0), torch.tensor(2.0)).square()).tangent == 12


def compile_program() -> None:
    """Without compiling, which takes long: the call fits the signature, and a missing compiler differs from one that fails."""
    import torch
    from torch import _inductor
    from torch._inductor import exc

    from app.torch_internals import CompilerFails, NoCompiler, compile_program

    signature = inspect.signature(_inductor.standalone_compile)
    calls = []

    def standalone_compile(*args, **kwargs) -> str:
        bound = signature.bind(*args, **kwargs).arguments
        calls.append((bound["dynamic_shapes"], bound["options"]))
        if len(calls) == 1:
            return "program"
        raise exc.InductorError(exc.InvalidCxxCompiler() if len(calls) == 2 else exc.CppCompileError(["g++"], "no header"), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inductor, "standalone_compile", standalone_compile)
        graph = torch.fx.symbolic_trace(torch.nn.Identity())
        assert compile_program(graph, [torch.zeros(1)], {"deterministic": True}) == "program"
        assert calls == [("from_example_inputs", {"config_patches": {"deterministic": True}})]
        with pytest.raises(NoCompiler):
            compile_program(graph, [], {})
        with pytest.raises(CompilerFails, match="no header"):
            compile_program(graph, [], {})


def fresh_compiler_cache() -> None:
    from app.torch_internals import fresh_compiler_cache

    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with fresh_compiler_cache():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] != before


# Lightning


def steps_of_a_fit() -> None:
    from helpers.small import small_run, trainer
    from lightning import Callback

    from app.lightning_internals import ask_nobody_of_signals, attached_trainer, is_logged, set_logged_step, validates_next

    class Probe(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            set_logged_step(trainer, 300 + batch_idx)

        def on_train_start(self, trainer, pl_module) -> None:
            assert callable(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)
            ask_nobody_of_signals(trainer)
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()  # without process group

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            steps.append((is_logged(trainer), validates_next(trainer), trainer.fit_loop.epoch_loop._batches_that_stepped))
            assert attached_trainer(pl_module) is trainer

    steps = []
    algorithm, data = small_run("ProtoNet", "classification")
    assert attached_trainer(algorithm) is None
    run = trainer(max_steps=4, val_check_interval=2, limit_val_batches=1, log_every_n_steps=3, callbacks=[Probe()])
    run.fit(algorithm, datamodule=data)
    assert steps == [(False, False, 300), (False, True, 301), (True, False, 302), (False, True, 303)]


def never_anonymous() -> None:
    from lightning.pytorch.loggers import WandbLogger

    from app.lightning_internals import never_anonymous

    logger = WandbLogger(offline=True, save_dir="unused", id="unused")
    assert "anonymous" in logger._wandb_init
    never_anonymous(logger)
    assert "anonymous" not in logger._wandb_init


def methods_of_the_command_line() -> None:
    from lightning.pytorch.cli import LightningCLI

    for name in ("_get", "_parser", "_parse_ckpt_path", "_run_subcommand", "_prepare_subcommand_kwargs"):
        assert callable(getattr(LightningCLI, name)), name


# jsonargparse


def typed_options() -> None:
    from jsonargparse import ArgumentParser

    from app.jsonargparse_internals import typed_options

    class Sized:
        def __init__(self, size: int, name: str | None = None):
            pass

    parser = ArgumentParser()
    parser.add_class_arguments(Sized, "sized")
    found = {name: (hint, action.required, action.default) for name, (action, hint) in typed_options(parser).items()}
    assert found == {"sized.size": (int, True, None), "sized.name": (str | None, False, None)}


def parsed() -> None:
    """Values become what their types say; whether all are there is not asked."""
    from jsonargparse import ArgumentParser, Namespace

    from app.jsonargparse_internals import parsed

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.5)
    assert parsed(parser, {"rate": 1}) == Namespace(size=None, rate=1.0)
    with pytest.raises(Exception, match="rate"):
        parsed(parser, {"rate": "fast"})


CASES: dict[Callable[[], None], str] = {
    **dict.fromkeys(
        (
            only_vmap,
            mapped_tensors,
            with_tensors,
            set_parameter,
            load_forward_mode,
            trees,
            lists_of_tensors,
            slopes,
            compile_program,
            fresh_compiler_cache,
        ),
        "torch",
    ),
    **dict.fromkeys((steps_of_a_fit, never_anonymous, methods_of_the_command_line), "lightning"),
    **dict.fromkeys((typed_options, parsed), "jsonargparse"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_library_has_what_is_used_of_it(case: Callable[[], None]):
    with uses(CASES[case], case.__name__):
        case()


def test_what_broke_is_one_line(monkeypatch):
    from app.torch_internals import functorch

    monkeypatch.delattr(functorch, "get_interpreter_stack")
    with pytest.raises(pytest.fail.Exception) as failed, uses("torch", "only_vmap"):
        only_vmap()
    message = str(failed.value)
    assert message.startswith(f"torch {version('torch')} breaks only_vmap (AttributeError: ") and "\n" not in message


# No other file

OURS_TO_OVERRIDE = {"_get", "_parser"}  # of LightningCLI, see above
PYTHONS_OWN = {"_exit", "_actions", "_replace", "_asdict", "_fields"}


def own_names(sources: dict[str, list[ast.AST]]) -> set[str]:
    """All private names that our files define."""
    found = set()
    for nodes in sources.values():
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def test_private_names_of_libraries_are_in_these_files_alone():
    paths = [path for top in ("app", "callbacks", "datamodules") for path in sorted((ROOT / top).rglob("*.py"))]
    sources = {str(path.relative_to(ROOT)): list(ast.walk(ast.parse(path.read_text()))) for path in paths}
    own, found = own_names(sources) | OURS_TO_OVERRIDE | PYTHONS_OWN, []
    for name, nodes in sources.items():
        for node in nodes if name not in INTERNALS else ():
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.Attribute):
                names = [node.attr] if node.attr not in own else []
            parts = [part for whole in (*modules, *names) for part in whole.split(".")]
            found += [f"{name}: {part}" for part in parts if part.startswith("_") and not part.startswith("__")]
    assert not found, f"give them an ordinary name in {' or '.join(INTERNALS)}, and a case above"
