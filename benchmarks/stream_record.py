"""The record of a stream: the table of all methods that went through it, over several seeds."""

import re
from pathlib import Path
from typing import Any

import yaml

from app.continual.metrics import Measure, measure_of
from benchmarks.markdown import commands, paragraph, table
from benchmarks.measure import describe_machine
from benchmarks.records import read_record, write_record
from callbacks.run_identity import git_commit

ELSEWHERE = Path("benchmarks") / "elsewhere.yaml"
PLACES = (0, 1, 2, 5)  # of the metrics that are shown, in the order of a measure's
SEEDS_TO_RANK = 5
SEARCH = re.compile(r"(?P<rule>.*): (?P<runs>[\d,]+) runs, (?P<seconds>[\d,]+) s of learning\.")
CONFIGS_OWN = "Learning rates are those of the configs, which were not all chosen by one rule."
COSTS = ("memory (KiB)", "samples", "gradients a sample", "seconds")


def write_stream_record(stream: str, rows: list[dict[str, Any]], command: str) -> Path:
    """Puts rows on record; those of other methods, and of the same ones in other views, stay."""
    old = read_record(stream)
    before = old["rows"] if old is not None and old["kind"] == "stream" else []
    facts = {"command": command, "commit": git_commit(), "machine": describe_machine()}
    new = [row | facts for row in rows]
    replaced = {(row["method"], row["view"]) for row in new}
    kept = [row for row in before if (row["method"], row["view"]) not in replaced]
    return write_record(stream, {"kind": "stream", "stream": stream, "rows": [*kept, *new]})


def show_stream(record: dict[str, Any], elsewhere: dict[str, dict[str, Any]]) -> list[str]:
    """A table for each view, the best score first, and the commands.

    Args:
        record: of the stream.
        elsewhere: view -> method -> what others measured.
    """
    parts = []
    for view in dict.fromkeys(row["view"] for row in record["rows"]):
        rows = sorted((row for row in record["rows"] if row["view"] == view), key=_place)
        parts.append(paragraph(f"{view.capitalize()}, {seeds_of(rows)}:"))
        others = elsewhere.get(view, {})
        measure = measure_of(rows[0])
        names = [*(measure.names[place] for place in PLACES), "prequential"]
        lines = [[row["method"], *_cells(row, measure), str(others.get(row["method"], ""))] for row in rows]
        parts.append(table(["method", *names, *COSTS, "rate", f"measured elsewhere, {names[0]}"], lines))
        rules = rules_of(rows)
        of_rows = {rule: "Rows without a rate: " if rule == CONFIGS_OWN else "Rows with a rate: " for rule in rules}
        parts.append(paragraph(" ".join(start * (len(rules) > 1) + rule for rule, start in of_rows.items())))
    return [*parts, commands(dict.fromkeys(row["command"] for row in record["rows"]))]


def rules_of(rows: list[dict[str, Any]]) -> list[str]:
    """By which the rates of the rows were chosen; the costs of searches by the same rule are those of all together."""
    costs: dict[str, list[int]] = {}
    for text in sorted({row.get("rates", CONFIGS_OWN) for row in rows}):
        found = SEARCH.fullmatch(text)
        runs = costs.setdefault(found["rule"] if found else text, [0, 0])
        for place, name in enumerate(("runs", "seconds") if found else ()):
            runs[place] += int(found[name].replace(",", ""))
    return [f"{rule}: {runs} runs, {seconds:,} s of learning." if runs else rule for rule, (runs, seconds) in costs.items()]


def seeds_of(rows: list[dict[str, Any]]) -> str:
    """How many seeds the rows of a table have, and whether they are enough to rank its methods."""
    counts = sorted({row["seeds"] for row in rows})
    few = f", too few to rank methods: their order may be chance below {SEEDS_TO_RANK}" * (counts[0] < SEEDS_TO_RANK)
    return f"{' or '.join(map(str, counts))} seed{'s' * (counts != [1])}{few}"


def _place(row: dict[str, Any]) -> tuple[float, str]:
    measure = measure_of(row)
    mean, _ = row["scores"].get(measure.names[0]) or row["scores"][measure.prequential]
    return -measure.sign * mean, row["method"]


def _cells(row: dict[str, Any], measure: Measure) -> list[str]:
    scores = [row["scores"].get(name) for name in (*(measure.names[place] for place in PLACES), measure.prequential)]
    found = [" ± ".join(measure.number(value, 1) for value in score if value is not None) if score else "" for score in scores]
    cost = row["cost"]
    found += [f"{cost['memory_bytes'] / 1024:,.0f}", f"{cost['samples']:,.0f}"]
    found += [f"{cost['gradients'] / cost['samples']:,.0f}", f"{cost['seconds']:,.0f}"]
    return [*found, f"{row['rate']:g}" if row.get("rate") else ""]


def read_elsewhere() -> dict[str, dict[str, dict[str, Any]]]:
    """What others measured, by stream, view and method."""
    return yaml.safe_load(ELSEWHERE.read_text())
