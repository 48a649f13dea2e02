"""What the tests of several runs gave, side by side."""

from html import escape
from typing import Any

from app.report.chart import Line, line_chart
from app.report.html import number, swatch, table
from app.report.recorded_run import RecordedRun

CALIBRATION = "expected calibration error"
LEAST_SCORES = ("loss", "mse", CALIBRATION)  # of which less is better


def headline(run: RecordedRun) -> str:
    """The number that people read, and its name: the test score, or the last one of validation."""
    results = run.results
    if main := results.get("score"):
        return _named(main, _final(results[main]), main)
    for view in (results.get("views") or {}).values():
        name = "final average accuracy" if "final average accuracy" in view else next(iter(view))
        return _named("accuracy", view[name], name)
    if "prequential accuracy" in results:
        return _named("accuracy", results["prequential accuracy"], "prequential accuracy")
    for name in ("val/accuracy", "val/mse"):
        if points := run.scalars.get(name):
            return _named(name, {"mean": points[-1][1], "ci95": None}, f"{name}, step {points[-1][0]}")
    return "<span class='soft'>no test yet</span>"


def results_tables(runs: list[RecordedRun]) -> str:
    """Every score of every run: a row a score, a column a run; the best of each row is bold where all are on the same data."""
    columns = [_scores(run.results) for run in runs]
    sections: dict[str, list[str]] = {}
    for scores in columns:
        for section, name in scores:
            names = sections.setdefault(section, [])
            if name not in names:
                names.append(name)
    parts = []
    for section in sorted(sections, key=lambda section: not section.startswith("test")):
        having = [at for at, scores in enumerate(columns) if any(key[0] == section for key in scores)]
        comparable = len({runs[at].names[1] for at in having}) == 1  # scores on other data say nothing about the method
        rows = [
            [name, *_row(name, [columns[at].get((section, name)) for at in having], comparable)] for name in sections[section]
        ]
        heads = [f'<th class="number">{swatch(at, runs[at].label)}' for at in having]
        parts.append(f"<h3>{escape(section)}</h3>{table(['', *heads], rows)}")
    return "".join(parts) or "<p class='soft'>None of these runs has been tested: train.py test writes results.json.</p>"


def adaptation_chart(runs: list[RecordedRun]) -> str:
    """The score after each inner step of the runs that adapt in several, and its 95 % intervals."""
    charts: dict[str, list[Line]] = {}
    for colour, run in enumerate(runs):
        name = run.results.get("score")
        score = run.results.get(name, {})
        if len(score.get("inner_steps", [])) > 1:
            finite = [row for row in zip(score["inner_steps"], score["mean"], score["ci95"], strict=True) if row[1] is not None]
            points, interval = [row[:2] for row in finite], [row[2] for row in finite]
            charts.setdefault(name, []).append(Line(run.label, colour, points, interval))
    drawn = [line_chart(f"test/{name} after each inner step", lines, "inner steps") for name, lines in charts.items()]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _scores(results: dict[str, Any]) -> dict[tuple[str, str], dict[str, float | None]]:
    """(section, name) -> mean and half width of the interval, of everything in a results.json."""
    found = {}
    parts = {"": results} | {f", {group}": part for group, part in results.get("groups", {}).items()}
    for suffix, part in parts.items():
        section = f"test{suffix}"
        if "num_episodes" in part:
            found[section, "episodes"] = {"mean": part["num_episodes"], "ci95": None}
        for name, score in part.items():
            if isinstance(score, dict) and "inner_steps" in score:
                if len(score["inner_steps"]) > 1:
                    found[section, f"{name} before adaptation"] = {"mean": score["mean"][0], "ci95": score["ci95"][0]}
                found[section, name] = _final(score)
        if "calibration" in part:
            found[section, CALIBRATION] = {"mean": part["calibration"]["error"], "ci95": None}
        for predictor, scores in part.get("references", {}).items():
            found |= {(section, f"{name} of {predictor}"): score for name, score in scores.items()}
    for view, metrics in results.get("views", {}).items():
        found |= {(f"{view}-incremental (%)", name): _in_percent(score) for name, score in metrics.items()}
    if "prequential accuracy" in results:
        found["stream", "prequential accuracy"] = results["prequential accuracy"]
        for name, value in results.get("cost", {}).items():
            found["cost", name.replace("_", " ")] = {"mean": value, "ci95": None}
    return found


def _final(score: dict[str, Any]) -> dict[str, float | None]:
    return {"mean": score["mean"][-1], "ci95": score["ci95"][-1]}


def _in_percent(score: dict[str, Any]) -> dict[str, Any]:
    return {key: 100 * value if isinstance(value, int | float) else value for key, value in score.items()}


def _row(name: str, scores: list[dict[str, float | None] | None], comparable: bool) -> list[str]:
    means = [score["mean"] for score in scores if score and score.get("mean") is not None]
    best = None
    if comparable and len(means) > 1 and ("accuracy" in name or name in LEAST_SCORES) and "before" not in name:
        best = min(means) if name in LEAST_SCORES else max(means)
    cells = []
    for score in scores:
        bold = " best" if score and best is not None and score["mean"] == best else ""
        cells.append(f'<td class="number{bold}">{_cell(name, score) if score else ""}')
    return cells


def _named(name: str, score: dict[str, Any], shown: str) -> str:
    return f"{_cell(name, score)} <span class='soft name'>{escape(shown)}</span>"


def _cell(name: str, score: dict[str, Any]) -> str:
    if score.get("mean") is None:
        reason = score.get("undefined")  # a score that means nothing here
        return f'<span title="{escape(reason)}">-</span>' if reason else "not finite"
    percent = "accuracy" in name or name == CALIBRATION
    scale, unit = (100, " %") if percent else (1, "")

    def shown(value: float) -> str:
        return f"{value * scale:.2f}" if percent else number(value)

    interval = "" if score.get("ci95") is None else f" <span class='soft'>± {shown(score['ci95'])}</span>"
    return f"{shown(score['mean'])}{unit}{interval}"
