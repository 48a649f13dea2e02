"""The life of a learner: what it knew after each of its lessons."""

import json
from pathlib import Path

from app.report.chart import Chart, Line, line_chart
from app.report.page import environment
from app.runs.learner_file import read_learner

SHOWN = ("held out", "classes or tasks", "examples", "bytes of memory")


def life_page(path: Path) -> str:
    """The page of a learner, in one HTML text that needs nothing else.

    Args:
        path: of its file.
    """
    content = read_learner(path)
    journal = json.loads(content["ledger"]["journal"])
    entries = [{**entry, "number": number, "counts": dict(entry["counts"])} for number, entry in enumerate(journal, start=1)]
    algorithm = content["checkpoint"]["algorithm"]
    subtitle = f"{algorithm}, which keeps {content['kind']}; {path.stat().st_size:,} bytes"
    template = environment().get_template("life.html")
    return template.render(title=path.stem, subtitle=subtitle, charts=_charts(entries), entries=entries)


def _charts(entries: list[dict]) -> list[Chart]:
    values = {
        "held out": [(entry["number"], entry["held_out"]["score"]) for entry in entries if "held_out" in entry],
        "classes or tasks": [(entry["number"], entry["names"]) for entry in entries],
        "examples": [(entry["number"], entry["examples"]) for entry in entries],
        "bytes of memory": [(entry["number"], entry["bytes"]) for entry in entries],
    }
    return [line_chart(name, [Line(name, 0, values[name])], may_be_logarithmic=False) for name in SHOWN if values[name]]
