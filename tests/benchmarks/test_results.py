"""RESULTS.md is what the records give."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import ROOT

from benchmarks import results
from benchmarks.markdown import number
from benchmarks.records import is_short
from benchmarks.results import table, verdict, write
from benchmarks.row import Group, Number, Row, Score
from benchmarks.stream_record import show_stream, write_stream_record

WAVES = Group("waves", "Waves", (Score("error", "mse"),), lower_is_better=True)
ROWS = [Row(name, WAVES, name.upper(), "small", published=(Number(0.5, 0.1),)) for name in ("a", "b", "c", "d")]


def record(name: str, mean: float | None, **other: Any) -> dict[str, Any]:
    score = {"mean": mean, "ci95": 0.05, "published": 0.5, "published_ci95": 0.1}
    return {
        "kind": "row",
        "group": "waves",
        "method": name.upper(),
        "scores": {"error": score},
        "source": "a paper",
        "steps": 100,
        "budget": 100,
        "protocol": {"shots": 5},
        **other,
    }


@pytest.fixture
def outline(tmp_path) -> Path:
    path = tmp_path / "outline.j2"
    path.write_text('# Results\n\n{{ hours() }}\n\n{{ group("waves") }}\n\n{{ record("speed") }}\n')
    return path


HOURS = {"kind": "hours", "device": "a processor", "cores": 2, "threads": 1, "hours": {"d": 1.25}}
SPEED = {
    "kind": "benchmark",
    "content": [{"text": "Fast."}, {"columns": ["a", "none"], "rows": [["1 | 2", ""]]}, {"commands": ["x"]}],
}


def test_the_page_is_what_the_records_give(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert results.main(["--check"]) == 0, capsys.readouterr().err


def test_comparable_rows_stand_together_and_misses_are_shown(outline):
    other = record("c", 0.1, protocol={"shots": 10})
    records = {"a": record("a", 0.7), "b": record("b", 0.6), "c": other, "e": record("e", None), "speed": SPEED, "hours": HOURS}
    text = write(ROWS, records, outline)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| B", "| A", "| E", "| C"]
    assert "reached" in lines[2] and "**short by 0.20**" in lines[3] and "0.5 ± 0.1 (a paper)" in lines[3]
    assert "Waiting to be trained: d (0.5 ± 0.1, 1.2 h)." in text and "those of 1 core of a processor" in " ".join(text.split())
    assert text.endswith("Fast.\n\n| a |\n| --- |\n| 1 \\| 2 |\n\n```\nx\n```\n")


def test_short_runs_and_transcribed_numbers_stand_apart(outline):
    records = {
        "a": record("a", 0.7, steps=10),
        "b": record("b", 0.6, steps=10, flat=True),
        "c": record("c", 0.7, kind="transcribed"),
        "d": record("d", 0.7, kind="transcribed", steps=None, note="Steps were not counted."),
        "speed": SPEED,
        "hours": HOURS,
    }
    text = write(ROWS, records, outline)
    parts = text.split("#### ")
    assert "| B |" in parts[0] and "flat" in parts[0] and "| C |" not in parts[0]
    assert parts[1].startswith("Transcribed") and "| C |" in parts[1] and "short by" in parts[1]
    assert parts[2].startswith("Short runs") and "| A |" in parts[2] and "10 of 100 steps" in parts[2]
    assert "short by" not in parts[2] and "d: Steps were not counted." in parts[2]
    assert is_short(records["a"]) and not is_short(records["b"])


def test_a_record_that_is_nowhere_shown_is_named(outline):
    with pytest.raises(ValueError, match="shows no record lost"):
        write(ROWS, {"lost": SPEED, "speed": SPEED, "hours": HOURS}, outline)


def test_a_row_is_short_below_both_intervals():
    higher = Group("letters", "Letters", (Score("accuracy", "accuracy"),))
    score = {"mean": 98.0, "ci95": 0.3, "published": 98.7, "published_ci95": 0.4}
    assert verdict([score], higher) == "reached"
    assert verdict([score | {"published_ci95": None}], higher) == "**short by 0.70**"
    assert verdict([score | {"published": None}], higher) == ""
    assert verdict([score | {"mean": None}], higher) == "**not finite**" and number((None, None), 2) == "not finite"


def test_empty_columns_are_left_out():
    assert table(["a", "b"], [["1", ""]]) == "| a |\n| --- |\n| 1 |"


def stream_row(method: str, accuracy: float, **other: Any) -> dict[str, Any]:
    cost = {"memory_bytes": 2048, "samples": 10, "gradients": 50, "seconds": 3.0}
    return {
        "method": method,
        "view": "domain-incremental",
        "seeds": 5,
        "scores": {"ACC": [accuracy, 0.01]},
        "cost": cost,
        **other,
    }


def test_a_stream_keeps_the_rows_of_other_methods(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stream_record("digits", [stream_row("er", 0.6), stream_row("finetune", 0.4)], "all of them")
    write_stream_record("digits", [stream_row("er", 0.7)], "one of them")
    record = json.loads(Path("results/digits.json").read_text())
    text = "\n".join(show_stream(record, {"domain-incremental": {"er": "68.5 ± 0.7"}}))
    assert "| er | 70.0 ± 1.0 | 2 | 10 | 5 | 3 | 68.5 ± 0.7 |\n| finetune | 40.0 ± 1.0 |" in text
    assert text.endswith("```\nall of them\none of them\n```")


def test_searches_of_one_rule_are_counted_together():
    rule = "Every rate is the best of 2: {} runs, {} s of learning."
    costs = [rule.format(2, "1,000"), rule.format(2, "1,000"), rule.format(3, "20")]  # the first two rows shared a search
    rows = [stream_row(f"{number}", 0.5, rates=rates, command="x") for number, rates in enumerate(costs)]
    *_, said, _ = show_stream({"rows": [*rows, stream_row("er", 0.4, command="x")]}, {})
    assert said.replace("\n", " ") == (
        "Rows with a rate: Every rate is the best of 2: 5 runs, 1,020 s of learning. "
        "Rows without a rate: Learning rates are those of the configs, which were not all chosen by one rule."
    )
