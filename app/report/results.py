"""What the tests of several runs gave, side by side."""

from typing import Any, NamedTuple

from app.report.chart import Chart, Line, line_chart
from app.report.recorded_run import RecordedRun

CALIBRATION = "expected calibration error"
LEAST_SCORES = ("loss", "mse", "forgetting", CALIBRATION)  # of which less is better
DIFFERENCES = ("BWT", "BTI", "FWT", "forgetting", CALIBRATION)  # of accuracies
ACCURACIES = ("ACC", "LA", "AAA", "min-ACC", "WC-ACC")  # of streams
SIZES = ("ways", "shots", "queries", "num_test_classes", "num_tasks")  # of the tasks of a test
Number = int | float | None


class Score(NamedTuple):
    """A score as the page shows it.

    Attributes:
        number: with its unit, or why there is none.
        interval: half width of its 95 % interval, empty for none.
        note: why it is undefined.
        name: of the score, where it stands alone.
        value: the number itself.
    """

    number: str
    interval: str = ""
    note: str = ""
    name: str = ""
    value: Number = None


class Row(NamedTuple):
    """One score of several runs; null of a run without it, and the positions of the best."""

    name: str
    scores: list[Score | None]
    best: list[int]


class Table(NamedTuple):
    """The scores of all runs that have any of a section."""

    title: str
    runs: list[RecordedRun]
    rows: list[Row]


def results(runs: list[RecordedRun]) -> dict[str, Any]:
    """For the page: the number that people read of each run, the `tables` of all scores, and the curves of adaptation."""
    summary = []
    for run in runs:
        seed = run.config.get("seed_everything", run.results.get("seed", ""))
        step = "" if run.last_step is None else number(run.last_step)
        method, data = run.names
        row = {"run": run, "headline": _headline(run), "method": method, "data": data, "last_step": step, "seed": seed}
        summary.append(row | {"folder": run.path, "task": ", ".join(_told_task(run))})
    return {"summary": summary, "tables": _tables(runs), "adaptation": _adaptation(runs)}


def _told_task(run: RecordedRun) -> list[str]:
    """What was tested, as far as it decides whether scores can be compared: sizes, split and whether queries were alone."""
    found = run.results
    parts = [f"{number(found[name])} {name.replace('_', ' ')}" for name in SIZES if isinstance(found.get(name), int | str)]
    parts += [f"{name.replace('_', ' ')} {found[name]}" for name in ("num_context", "num_target") if found.get(name)]
    parts += [str(found["scenario"])] if "scenario" in found else []
    if "transductive" in found:
        parts.append("transductive" if found["transductive"] else "each query by itself")
    digest = found.get("data_manifest_hash", found.get("manifest_hash"))
    return [*parts, *([f"split {str(digest)[:6]}"] if digest else [])]


def _task(run: RecordedRun) -> tuple[str, ...]:
    return run.names[1], *_told_task(run)


def number(value: Any) -> str:
    """A count with separators, or a number to four digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _headline(run: RecordedRun) -> Score | None:
    """The test score, or the last one of validation."""
    found = run.results
    if (name := found.get("score")) in found:
        return _shown(name, _final(found[name]), name)
    for view in (found.get("views") or {}).values():
        name = next(iter(view))
        return _shown(name, view[name], name)
    if "prequential accuracy" in found:
        return _shown("prequential accuracy", found["prequential accuracy"], "prequential accuracy")
    for name in ("val/accuracy", "val/mse"):
        if points := run.scalars.get(name):
            return _shown(name, {"mean": points[-1][1]}, f"{name}, step {points[-1][0]}")
    return None


def _tables(runs: list[RecordedRun]) -> list[Table]:
    """Every score of every run: a row a score, a column a run; the best of each row where all are of the same task."""
    columns = [_scores(run.results) for run in runs]
    sections: dict[str, dict[str, None]] = {}
    for scores in columns:
        for section, name in scores:
            sections.setdefault(section, {})[name] = None
    tables = []
    for section in sorted(sections, key=lambda section: not section.startswith("test")):
        having = [at for at, scores in enumerate(columns) if any(key[0] == section for key in scores)]
        comparable = len({_task(runs[at]) for at in having}) == 1  # scores of other tasks say nothing about the method
        rows = []
        for name in sections[section]:
            scores = [columns[at].get((section, name)) for at in having]
            shown = [_shown(name, score) if score else None for score in scores]
            rows.append(Row(name, shown, _best(name, shown) if comparable else []))
        tables.append(Table(section, [runs[at] for at in having], rows))
    return tables


def _best(name: str, scores: list[Score | None]) -> list[int]:
    values = [score.value for score in scores if score and score.value is not None]
    if len(values) < 2 or "before" in name or not (_is_accuracy(name) or name in LEAST_SCORES):
        return []
    best = min(values) if name in LEAST_SCORES else max(values)
    return [at for at, score in enumerate(scores) if score and score.value == best]


def _adaptation(runs: list[RecordedRun]) -> list[Chart]:
    """The score after each inner step of the runs that adapt in several, and its 95 % intervals."""
    charts: dict[str, list[Line]] = {}
    for run in runs:
        name = run.results.get("score")
        score = run.results.get(name, {})
        if len(score.get("inner_steps", [])) > 1:
            finite = [row for row in zip(score["inner_steps"], score["mean"], score["ci95"], strict=True) if row[1] is not None]
            points, interval = [row[:2] for row in finite], [row[2] for row in finite]
            charts.setdefault(name, []).append(Line(run.label, run.colour, points, interval))
    return [line_chart(f"test/{name} after each inner step", lines, "inner steps") for name, lines in charts.items()]


def _scores(results: dict[str, Any]) -> dict[tuple[str, str], dict[str, Number]]:
    """(section, name) -> mean and half width of the interval, of everything in a results.json."""
    found = {}
    parts = {"": results} | {f", {group}": part for group, part in results.get("groups", {}).items()}
    for suffix, part in parts.items():
        section = f"test{suffix}"
        if "num_episodes" in part:
            found[section, "episodes"] = {"mean": part["num_episodes"]}
        for name, score in part.items():
            if isinstance(score, dict) and "inner_steps" in score:
                if len(score["inner_steps"]) > 1:
                    found[section, f"{name} before adaptation"] = {"mean": score["mean"][0], "ci95": score["ci95"][0]}
                found[section, name] = _final(score)
        if "calibration" in part:
            found[section, CALIBRATION] = {"mean": part["calibration"]["error"]}
        for predictor, scores in part.get("references", {}).items():
            found |= {(section, f"{name} of {predictor}"): score for name, score in scores.items()}
    for view, metrics in results.get("views", {}).items():
        found |= {(f"{view}-incremental", name): score for name, score in metrics.items()}
    if "prequential accuracy" in results:
        found["stream", "prequential accuracy"] = results["prequential accuracy"]
        for name, value in results.get("cost", {}).items():
            found["cost", name.replace("_", " ")] = {"mean": value}
    return found


def _final(score: dict[str, Any]) -> dict[str, Number]:
    return {"mean": score["mean"][-1], "ci95": score["ci95"][-1]}


def _is_accuracy(name: str) -> bool:
    return "accuracy" in name or name in ACCURACIES


def _shown(name: str, score: dict[str, Any], alone: str = "") -> Score:
    value, interval = score.get("mean"), score.get("ci95")
    if value is None:
        reason = score.get("undefined")  # a score that means nothing here
        return Score("-", note=reason, name=alone) if reason else Score("not finite", name=alone)
    if not isinstance(value, int | float):  # of a file that was changed by hand
        return Score(str(value), name=alone)
    percent = _is_accuracy(name) or name in DIFFERENCES
    in_unit = [f"{100 * one:.2f}" if percent else number(one) for one in (value, interval) if isinstance(one, int | float)]
    return Score(f"{in_unit[0]}{' %' if percent else ''}", "".join(in_unit[1:]), name=alone, value=value)
