"""The life of a learner: what it knew after each of its lessons."""

import json
from pathlib import Path

from app.report.chart import Chart, Line, line_chart
from app.report.page import environment
from app.runs.learner_file import read_learner

KEEPS = {"sums": "sums", "examples": "examples", "stream": "its weights and its own memory", "head": "a head that learns on"}


def life_page(path: Path) -> str:
    """The page of a learner, in one HTML text that needs nothing else.

    Args:
        path: of its file.
    """
    content = read_learner(path)
    journal = json.loads(content["ledger"]["journal"])
    entries = [{**entry, "number": number, "counts": dict(entry["counts"])} for number, entry in enumerate(journal, start=1)]
    checkpoint = content["checkpoint"]
    subtitle = f"{checkpoint['algorithm']}, which keeps {KEEPS[content['kind']]}; {path.stat().st_size:,} bytes"
    is_regression = checkpoint["task"]["task_type"] == "regression"
    template = environment().get_template("life.html")
    charts = _charts(entries, is_regression)
    return template.render(title=path.stem, subtitle=subtitle, charts=charts, entries=entries, is_regression=is_regression)


def _charts(entries: list[dict], is_regression: bool) -> list[Chart]:
    entries = [entry for entry in entries if not entry.get("merged")]  # those count what another learner knew
    score, names = ("mean squared error", "tasks") if is_regression else ("accuracy", "classes")
    values = {
        f"{score} on held-out examples": [(one["number"], one["held_out"]["score"]) for one in entries if "held_out" in one],
        names: [(one["number"], one["names"]) for one in entries],
        "examples": [(one["number"], one["examples"]) for one in entries],
        "bytes of memory": [(one["number"], one["bytes"]) for one in entries],
    }
    lines = {title: Line(title, 0, points) for title, points in values.items() if points}
    return [line_chart(title, [line], x_label="entry of the journal", may_be_logarithmic=False) for title, line in lines.items()]
