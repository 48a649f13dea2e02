"""What the runs took for what: the tables of classes that `test` wrote, and the accuracies of all runs side by side."""

from typing import Any, NamedTuple

from app.report.recorded_run import RecordedRun


class ClassAccuracy(NamedTuple):
    """Accuracy of a class in a run, and of how many queries."""

    percent: str
    queries: str


def class_tables(runs: list[RecordedRun]) -> dict[str, Any] | None:
    """For the page: the classes of several runs `side_by_side`, or null, and the `tables` of each run."""
    having = [run for run in runs if "classes" in run.tables]
    tables = [
        {"run": run, "title": title, "columns": columns, "rows": [[_as_number(cell) for cell in row] for row in rows]}
        for run in runs
        for title, (columns, *rows) in run.tables.items()
        if rows
    ]
    return {"side_by_side": _side_by_side(having) if len(having) > 1 else None, "tables": tables} if tables else None


def _side_by_side(runs: list[RecordedRun]) -> dict[str, Any]:
    """The accuracy of every class in every run, the class that is worst on average first."""
    columns = [
        {row[0]: row for row in run.tables["classes"][1:] if len(row) > 4 and isinstance(_as_number(row[4]), int | float)}
        for run in runs
    ]
    found: dict[str, list[float]] = {}
    for column in columns:
        for name, row in column.items():
            found.setdefault(name, []).append(float(row[4]))
    rows = []
    for name in sorted(found, key=lambda name: sum(found[name]) / len(found[name])):
        of_runs = [column.get(name) for column in columns]
        rows.append((name, [row and ClassAccuracy(f"{100 * float(row[4]):.1f}", row[2]) for row in of_runs]))
    return {"runs": runs, "rows": rows}


def _as_number(cell: str) -> str | int | float:
    try:
        return int(cell) if cell.isdigit() else float(cell)
    except ValueError:
        return cell
