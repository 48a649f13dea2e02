"""A compiled training step is the same step."""

import shutil
from functools import partial

import pytest
import torch
from helpers.small import METHODS, SaveAt, flat, options, relative_error, small_run, trainer
from torch import Tensor, nn
from torch._inductor import config
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch.fx.experimental.proxy_tensor import make_fx

from app.backbones.conv4 import GlobalMean
from app.backbones.mlp import MLP
from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d
from app.episode import Episode
from app.errors import InputError
from app.inner_loop.gradient_descent import INNER_GRADIENT_NORM
from app.inner_loop.observation import observing
from app.inner_loop.task_stack import stacking
from app.learners import compiled_gradient

SOON = {"backbone": partial(MLP, hidden_sizes=(6, 6, 6, 6), norms=True)}  # convolutions take long to trace
COMPILED = [name for name, (cls, _) in METHODS.items() if "compile" in options(cls)]


class Convolutions(nn.Module):
    """The first two blocks of Conv4, the second of which has a gradient in its inputs; the others are like it."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int):
        super().__init__()
        blocks: list[nn.Module] = []
        for channels in (input_shape[0], 4):
            blocks += [TaskConv2d(channels, 4, 3, stride=2, padding=1, bias=False), TaskBatchNorm(4), nn.ReLU()]
        self.body, self.head = nn.Sequential(*blocks, GlobalMean()), nn.Linear(4, output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


CONVOLUTIONS = {"backbone": Convolutions}


@pytest.fixture
def traced(monkeypatch):
    """The programs as they were traced, and no compiler, which takes long."""
    programs = []
    monkeypatch.setattr(compiled_gradient, "compile_graph", lambda graph, *_: programs.append(graph) or graph)
    return programs


def gradients(method, task, how=None, **wanted):
    """Gradient, metrics and inner gradient norms of four tasks in float64, of the method as it is and compiled."""
    for compile in (False, True):
        algorithm, data = small_run(method, task, tasks_per_chunk=3, inner_steps=1, compile=compile, **wanted)
        batch = Episode(*map(torch.stack, zip(*(data.episode("train", index) for index in range(4)), strict=True)))
        algorithm.double()
        with stacking(how), observing(INNER_GRADIENT_NORM) as observed:
            gradient, metrics = algorithm.outer_gradient(dict(algorithm.named_parameters()), algorithm.as_dtype(batch))
        yield gradient, metrics, observed[INNER_GRADIENT_NORM]


def assert_equal(expected, actual):
    assert relative_error(actual[0], expected[0]) < 1e-11
    assert actual[1].keys() == expected[1].keys()
    for one, other in zip((*expected[1].values(), *expected[2]), (*actual[1].values(), *actual[2]), strict=True):
        assert torch.allclose(one, other, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), [*((method, "classification") for method in COMPILED), ("MAML", "regression")])
def test_the_traced_step_is_the_same(traced, method, task):
    assert_equal(*gradients(method, task, **{"classification": SOON, "regression": {}}[task]))
    assert len(traced) == 1  # of three tasks; the fourth is left as it is


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "option"),
    [
        (None, CONVOLUTIONS),
        ("patches", CONVOLUTIONS),
        ("off", CONVOLUTIONS),
        (None, SOON | {"transductive": False}),
        (None, SOON | {"inner_optimizer": "adam"}),
    ],
)
def test_so_it_is_in_each_variant(traced, how, option):
    assert_equal(*gradients("MAML", "classification", how, **option))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_is_traced_once(traced, precision):
    ends = []
    for compile in (False, True):
        algorithm, data = small_run(
            "MAML", "regression", compile=compile, inner_steps=1, backbone=partial(MLP, hidden_sizes=(6,))
        )
        trainer(3, precision=precision).fit(algorithm, data)
        ends.append(dict(algorithm.named_parameters()))
    assert len(traced) == 1
    assert relative_error(*ends) < 1e-6


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler: install g++")
def test_the_compiler_changes_nothing(tmp_path, monkeypatch, capsys):
    """Nor do a resumed run's bits depend on when it compiled."""
    pick_vec_isa()  # what the compiler can is tried out once on a machine: in a new folder again, by processes that import torch
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    new = partial(small_run, "MAML", "regression", inner_steps=1, backbone=partial(MLP, hidden_sizes=(6,)))
    (plain, data), (whole, its_data), (resumed, last_data) = new(), new(compile=True), new(compile=True)
    trainer(4).fit(plain, data)
    trainer(4, (SaveAt(2, tmp_path / "at_2.ckpt"),)).fit(whole, its_data)
    trainer(4).fit(resumed, last_data, ckpt_path=tmp_path / "at_2.ckpt", weights_only=False)
    assert relative_error(dict(whole.named_parameters()), dict(plain.named_parameters())) < 1e-6
    assert torch.equal(flat(dict(whole.named_parameters())), flat(dict(resumed.named_parameters())))
    assert "compiling the training step" in capsys.readouterr().out


@pytest.fixture
def graph(tmp_path, monkeypatch) -> tuple:
    """A program of one kernel, and what it is compiled for."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tensors = [torch.zeros(5)]
    return make_fx(lambda x: [x.sin() + x], tracing_mode="fake")(*tensors), tensors, "cpu"


@pytest.mark.slow
def test_a_compiler_is_needed(graph):
    wanted = r"--model.compile true needs a C\+\+ compiler; install g\+\+"
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(InputError, match=wanted):
        compiled_gradient.compile_graph(*graph)


@pytest.mark.slow
def test_what_a_compiler_misses_is_said(graph, tmp_path):
    compiler = tmp_path / "g++"
    missing = "x.h:1: fatal error: Python.h: No such file"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *--version*) echo "g++ 12.2";; *) echo "{missing}" >&2; exit 1;; esac\n')
    compiler.chmod(0o755)
    wanted = rf"--model.compile true: the C\+\+ compiler fails \({missing}\); install"
    with config.patch({"cpp.cxx": (str(compiler),)}), pytest.raises(InputError, match=wanted):
        compiled_gradient.compile_graph(*graph)


def test_only_a_gradient_of_tensors_alone_is_compiled():
    """Those of the others depend on how far the run is, on random numbers, or are none of autograd's."""
    assert {"IMAML", "MAMLPP", "NP", "ProtoNet", "Reptile"}.isdisjoint(COMPILED)
    assert {"ALFA", "CAVIA", "MAML", "MetaCurvature", "MetaSGD"} < set(COMPILED)


def test_tasks_of_many_sizes_are_refused():
    algorithm, data = small_run("MAML", "regression", compile=True)
    data.episode = lambda split, index: Episode(*(torch.zeros(3 + index // data.meta_batch_size % 2, 1) for _ in range(4)))
    with pytest.raises(InputError, match=r"--model.compile true compiles a program for each size of a task, and --data"):
        algorithm.check_data(data)
    data.used_splits = ("test",)
    algorithm.check_data(data)


def test_checkpoints_and_compilation_exclude_each_other():
    with pytest.raises(InputError, match=r"--model.checkpoint_inner_steps true computes twice"):
        small_run("MAML", compile=True, checkpoint_inner_steps=True)
