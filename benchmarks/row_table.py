"""What is seen of the queue: a table, or lines where it goes to a file."""

from datetime import datetime
from typing import NamedTuple

from rich.table import Table

from benchmarks.markdown import number
from benchmarks.records import is_short, read_record
from benchmarks.row import Row
from benchmarks.row_progress import progress
from benchmarks.row_run import Work
from benchmarks.stream_row import StreamRow


class Shown(NamedTuple):
    """A row as it is shown.

    Attributes:
        name: of the row.
        state: done, training, testing, failed, stopped, elsewhere, left, ...
        steps: that are done.
        of_steps: that there will be.
        speed: steps a second; null where it is not known.
        hours: to go; null where they are not known.
        score: the record's or the last validation's.
        published: what it stands beside.
        remark: why it failed, or who is at work on it.
    """

    name: str
    state: str
    steps: int
    of_steps: int
    speed: float | None
    hours: float | None
    score: str
    published: str
    remark: str

    @classmethod
    def of(cls, row: Row | StreamRow, work: Work | None, elsewhere: str | None, hours: float | None = None) -> "Shown":
        """A row, with the work on it where this process has begun it."""
        published = " / ".join("-" if one is None else f"{one.mean:g}" for one in row.published)
        if work is not None and work.state != "done":
            steps, speed, validated = progress(row, work.since)
            score = f"val {validated:.4f}" if validated is not None else ""
            left = max(0, row.steps - steps) / speed / 3600 if speed and work.state == "training" else None
            return cls(row.name, work.state, steps, row.steps, speed, left, score, published, work.problem or "")
        record = read_record(row.name)
        if record is None or record["kind"] not in ("row", "stream"):
            state = "not here" if row.why_not else "elsewhere" if elsewhere else "left"
            return cls(row.name, state, 0, row.steps, None, hours, "", published, row.why_not or elsewhere or "")
        state = "done" if row.is_recorded(record) else "short run" if is_short(record) else "done with other settings"
        if record["kind"] == "stream":
            return cls(row.name, state, row.finished_steps, row.steps, None, hours, "", published, f"{len(record['rows'])} lines")
        score = " / ".join(number((one["mean"], None), row.group.digits) for one in record["scores"].values())
        return cls(row.name, state, record["steps"], row.steps, None, hours, score, published, record["ended"])


def table(shown: list[Shown]) -> Table:
    """All rows."""
    result = Table(title=_summary(shown), title_justify="left")
    for name in ("row", "state", "steps", "steps/s", "hours", "score", "published", ""):
        result.add_column(name, justify="left" if name in ("row", "state", "") else "right", overflow="fold")
    for one in shown:
        steps = f"{one.steps:,} of {one.of_steps:,}" if one.steps else f"{one.of_steps:,}"
        speed, hours = _number(one.speed), _number(one.hours)
        result.add_row(one.name, one.state, steps, speed, hours, one.score, one.published, one.remark)
    return result


def lines(shown: list[Shown]) -> list[str]:
    """What runs, and a summary, each a whole line."""
    now = datetime.now().strftime("%H:%M:%S")
    found = [f"{now} {_summary(shown)}"]
    for one in shown:
        if one.state in ("training", "testing", "stopped", "failed"):
            speed = f", {one.speed:.3g} steps/s" if one.speed else ""
            hours = f", {one.hours:.2g} hours to go at most" if one.hours is not None else ""
            score = f", {one.score}" if one.score else ""
            remark = f": {one.remark}" if one.remark else ""
            found.append(f"{now} {one.name} {one.state}, {one.steps:,} of {one.of_steps:,} steps{speed}{score}{hours}{remark}")
    return found


def _summary(shown: list[Shown]) -> str:
    counts = {state: sum(one.state == state for one in shown) for state in dict.fromkeys(one.state for one in shown)}
    hours = [one.hours for one in shown if one.hours is not None and one.state != "done"]
    known = f"; {sum(hours):.3g} hours for {len(hours)} of them" if hours else ""
    return f"{len(shown)} rows: {', '.join(f'{count} {state}' for state, count in counts.items())}{known}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
