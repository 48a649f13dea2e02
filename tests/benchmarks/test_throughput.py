"""The benchmarks of the outer step run, on tasks so small that their numbers mean nothing."""

import json

import pytest

from benchmarks import hypergradients, scaling, throughput
from benchmarks.maml_shapes import Shape

TINY = {
    "a": Shape((1, 8, 8), 1, 1, 2, 0.4, {"width": 4}),
    "c": Shape((3, 32, 32), 2, 2, 2, 0.01, {"width": 4, "downsample": "max_pool"}),
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(throughput, "SHAPES", TINY)
    for module in (throughput, scaling, hypergradients):
        monkeypatch.setattr(module, "peak_memory", lambda *_, **__: 1.0)
    for module in (throughput, scaling):
        monkeypatch.setattr(module, "in_processes", lambda *_: 1.0)
    monkeypatch.setattr(throughput, "as_it_comes", lambda *_: 1.0)
    monkeypatch.setattr(throughput, "ceiling", lambda *_: 1e9)


@pytest.mark.slow
def test_throughput(tmp_path, capsys):
    throughput.main(["--shapes", "a,c", "--repeats", "1", "--out", str(tmp_path / "numbers.json")])
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert {row["by"] for row in found["rows"]} >= {"ours", "ours, two processes", "learn2learn", "loop"}
    assert all(row["tasks/s"] > 0 for row in found["rows"])
    assert len(found["others"]) == 5 and "learn2learn" in capsys.readouterr().out


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("first_order", [False, True])
def test_a_wrong_rival_is_found(monkeypatch, name, first_order):
    assert throughput.gradient_error("loop", TINY[name], first_order, "cpu") < 1e-12
    monkeypatch.setitem(throughput.RIVALS, "loop", lambda *args: throughput.RIVALS["learn2learn"](*args[:3], 0.2, args[4]))
    assert throughput.gradient_error("loop", TINY[name], first_order, "cpu") > 1e-6


@pytest.mark.slow
def test_the_compiled_step_takes_its_turn(monkeypatch):
    monkeypatch.setattr("app.learners.compiled_gradient.compile_graph", lambda graph, *_: graph)  # compiling takes long
    rows = throughput.compare("a", False, "32", "cpu", 1, [throughput.COMPILED])
    assert [row["by"] for row in rows] == ["ours", throughput.COMPILED]
    assert float(rows[1]["gradient differs by"]) < 1e-12 and rows[1]["first step s"] > 0


def test_scaling(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "BASE", TINY["a"])
    monkeypatch.setattr(scaling, "GROWING", {"meta-batch": (1, 2), "ways": (2, 3), "image side": (8, 12)})
    scaling.main(["--repeats", "1", "--out", str(tmp_path / "numbers.json")])
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    assert [row["size"] for row in rows] == [1, 2, 2, 3, 8, 12, 1, 2]
    assert (tmp_path / "numbers.png").stat().st_size > 0


@pytest.mark.slow
def test_hypergradients(tmp_path):
    hypergradients.main(["--steps", "1,2", "--tasks", "1", "--repeats", "1", "--out", str(tmp_path / "numbers.json")])
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    assert [(row["inner steps"], row["hypergradient"]) for row in rows] == [
        (n, way) for n in (1, 2) for way in hypergradients.WAYS_TO_IT
    ]
    assert all(row["times"] > 0 and row["processor times"] > 0 for row in rows)


def test_the_exponent_of_growth():
    assert scaling.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


@pytest.mark.parametrize("benchmark", [throughput, scaling, hypergradients])
def test_a_missing_gpu_is_said(benchmark, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark.main(["--device", "cuda"])
    assert "no GPU is here" in capsys.readouterr().err
