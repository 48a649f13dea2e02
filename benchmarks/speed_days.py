"""The times of an outer step on several days, on record: one day's machine may be slow, or a rival's libraries."""

import os
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.measure import timing
from benchmarks.records import RECORDS, read_record, write_record
from callbacks.run_identity import git_commit

NAME = "speed_days"
MOST_ELSEWHERE = 0.1  # of a core
AS_ITS_USERS_RUN_IT = "learn2learn, memory left to glibc"
COMMAND = "uv run --group bench python -m benchmarks.throughput --record"
TEXT = (
    "An outer step of MAML in ms on an idle machine, 5-way 1-shot: the median of the runs [the least, the most of a run]. "
    "The shapes are those of the table below. A ratio is of times of one run."
)


def cores_elsewhere(seconds: float = 2.0) -> float | None:
    """Cores that other programs keep busy while this one sleeps; null where the system does not say, as outside Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    before = _busy_ticks(stat)
    time.sleep(seconds)
    return (_busy_ticks(stat) - before) / os.sysconf("SC_CLK_TCK") / seconds


def _busy_ticks(stat: Path) -> int:
    user, nice, system, _, _, *interrupts = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + sum(interrupts)


def add_run(machine: dict[str, Any], rows: list[dict[str, Any]], folder: Path = RECORDS) -> Path:
    """Puts the times of a run on record, beside those of other days.

    Args:
        machine: as `describe_machine` has it.
        rows: of the throughput benchmark.
        folder: of the records.
    """
    seconds: dict[str, dict[str, float]] = {}
    for row in rows:
        seconds.setdefault(row["shape"], {})[row["by"]] = 1 / row["steps/s"]
    record = read_record(NAME, folder)
    run = {"day": f"{date.today()}", "commit": git_commit(), **machine, "seconds": seconds}
    runs = [*(record["runs"] if record else []), run]
    return write_record(NAME, {"kind": "benchmark", "content": content(runs), "runs": runs}, folder)


def content(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table for each kind of machine, that of the last run first, as `benchmarks.results` takes it."""
    alike: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in reversed(runs):
        alike.setdefault((run["device"], run["cores"]), []).insert(0, run)
    return [{"text": TEXT}, *(part for own in alike.values() for part in _of_machine(own)), {"commands": [COMMAND]}]


def _of_machine(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of runs on one kind of machine, below a line that says which."""
    table = []
    for setting in runs[-1]["seconds"]:
        found = [run["seconds"][setting] for run in runs if setting in run["seconds"]]
        for by in found[-1]:
            times = [run[by] for run in found if by in run]
            ratios = [_times(found, by, rival) if by != rival else "" for rival in ("learn2learn", AS_ITS_USERS_RUN_IT)]
            table.append([setting, by, f"{timing(times)}" if len(times) > 1 else f"{1e3 * times[0]:,.1f}", *ratios])
    columns = ["shape", "by", "ms", "times as fast as learn2learn", "as learn2learn with memory left to glibc"]
    days = ", ".join(sorted({run["day"] for run in runs}))
    where = f"{runs[-1]['cores']} cores of {runs[-1]['device']}; runs: {len(runs)}, on {days}."
    return [{"text": where}, {"columns": columns, "rows": table}]


def _times(found: list[dict[str, float]], by: str, rival: str) -> str:
    """How many times as fast as a rival: the median of the runs that timed both, and the range where there are several."""
    ratios = [run[rival] / run[by] for run in found if by in run and rival in run]
    if not ratios:
        return ""
    spread = f" [{min(ratios):.1f}, {max(ratios):.1f}]" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.1f}{spread}"
