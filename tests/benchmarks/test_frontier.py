"""Accuracy against what it costs: the points and their picture."""

import json

import pytest
from PIL import Image

from benchmarks import frontier
from benchmarks.continual_candidates import METHODS
from benchmarks.meta_continual_search import Deployed

LINE = {
    "stream": "split_mnist",
    "source": "digits",
    "method": "ER",
    "numbers": "meta-learned",
    "found": "lr 0.1, replay_weight 3",
}


@pytest.fixture
def numbers_on_record(tmp_path, monkeypatch):
    """A folder to work in, with the numbers of two methods, and streams that are as accurate as their memory is large."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    rows = [{**LINE, "numbers": "by hand", "found": "lr 7"}, LINE, {**LINE, "method": "fine-tuning", "found": "lr 0.02"}]
    (tmp_path / "results" / "meta_continual.json").write_text(json.dumps({"rows": rows}))
    tried = []

    def deploy(stream, method, count, *rest):
        memory = method.keywords.get("memory", 0)
        tried.append((memory, method.keywords["optimizer"].keywords["lr"], method.keywords.get("replay_weight")))
        return Deployed([memory / 1000, memory / 2000], 800 * memory, 2500, 250, 0.5)

    monkeypatch.setattr(frontier, "deploy", deploy)
    return tried


def test_a_point_for_each_method_and_budget(numbers_on_record, tmp_path, capsys):
    options = ["--stream=split_mnist", "--methods", "ER", "fine-tuning", "--memories", "50", "200", "--record"]
    assert frontier.main(options) == 0
    assert numbers_on_record == [(50, 0.1, 3.0), (200, 0.1, 3.0), (0, 0.02, None)]
    points = json.loads((tmp_path / "results" / "frontier.json").read_text())["points"]
    assert [(point["method"], point["memory"], point["memory_bytes"]) for point in points] == [
        ("ER", 50, 40_000),
        ("ER", 200, 160_000),
        ("fine-tuning", None, 0),
    ]
    assert Image.open(tmp_path / "docs" / "pictures" / "frontier.png").size[0] > 500
    assert "160,000" in capsys.readouterr().out


def test_points_stand_where_their_costs_are():
    costs = {"memory_bytes": 10.0, "gradients": 20.0, "seconds": 30.0}
    points = [
        {"method": name, "memory": memory, "accuracy": [0.5, 0.1], **{cost: value * factor for cost, value in costs.items()}}
        for name, memory, factor in (("ER", 200, 2), ("ER", 50, 1), ("SI", None, 3))
    ]
    figure = frontier.drawn(points)
    for axes, value in zip(figure.axes, costs.values(), strict=True):
        lines = [container[0] for container in axes.containers]
        assert [list(line.get_xdata()) for line in lines] == [[value, 2 * value], [3 * value]]
        assert list(lines[0].get_ydata()) == [50, 50]


def test_numbers_that_were_not_searched(numbers_on_record, capsys):
    assert frontier.main(["--stream=split_mnist", "--methods=DER++"]) == 1
    assert "--methods DER++ has no meta-learned numbers on record for split_mnist; run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        frontier.main(["--stream=split_mnist", "--memories", "50", "0"])
    assert "--memories is 0; give at least 1" in capsys.readouterr().err


def test_a_method_without_a_memory_has_one_budget():
    assert [one.options.get("memory") for one in frontier.budgets(METHODS["A-GEM"], [5, 7])] == [5, 7]
    assert frontier.budgets(METHODS["SI"], [5, 7]) == [METHODS["SI"]]
