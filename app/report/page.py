"""The page, of templates that escape whatever a run has in its files."""

from base64 import b64encode
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.report.chart import Chart, Line, line_chart
from app.report.class_tables import class_tables
from app.report.recorded_run import RecordedRun
from app.report.results import number, results

TEMPLATES = Path(__file__).with_name("templates")
FIRST_PANELS = ("val", "train", "stream", "test", "system")
SHOWN_STEPS = 4  # of a picture that was drawn at many
HIDDEN = ("logger.", "callbacks", "default_root_dir", "ckpt_path")  # of the config, where runs always differ


class Panel(NamedTuple):
    """The curves of one kind; folded where there is one for each layer."""

    name: str
    folded: bool
    charts: list[Chart]


class Figure(NamedTuple):
    """A picture of a run at a step, in base64."""

    run: RecordedRun
    step: int
    data: str


class Picture(NamedTuple):
    """What all runs have drawn by one name."""

    name: str
    latest: list[Figure]
    earlier: list[Figure]


def environment() -> Environment:
    """Templates that escape whatever they are given."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {"number": number, "place": "{:.1f}".format}
    return found


def page(runs: list[RecordedRun]) -> str:
    """The runs side by side, in one HTML text that needs nothing else."""
    sections = {
        "results": results(runs),
        "curves": _panels(runs),
        "classes": class_tables(runs),
        "pictures": _pictures(runs),
        "config": _config(runs),
        "environment": _environment(runs),
    }
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    pairs = dict.fromkeys(" on ".join(name for name in run.names if name) for run in runs)
    subtitle = "; ".join(pair for pair in pairs if pair)
    return environment().get_template("page.html").render(title=title, subtitle=subtitle, runs=runs, sections=sections)


def _panels(runs: list[RecordedRun]) -> list[Panel]:
    panels: dict[str, dict[str, None]] = {}
    for run in runs:
        for name in run.scalars:
            panels.setdefault(name.rpartition("/")[0] or "other", {})[name] = None
    found = []
    for panel in sorted(panels, key=lambda panel: (*_place(panel), panel)):
        lines = {name: [_line(run, name) for run in runs] for name in sorted(panels[panel]) if not name.endswith("_ci95")}
        charts = [
            line_chart(name, of_runs, may_be_logarithmic="/lr" not in name)
            for name, of_runs in lines.items()
            if any(len(line.points) > 1 for line in of_runs)
        ]
        found += [Panel(panel, "/" in panel, charts)] if charts else []
    return found


def _line(run: RecordedRun, name: str) -> Line:
    points, half_widths = run.scalars.get(name, []), dict(run.scalars.get(f"{name}_ci95", []))
    return Line(run.label, run.colour, points, [half_widths.get(step) for step, _ in points] if half_widths else ())


def _place(panel: str) -> tuple[int, bool]:
    first = panel.partition("/")[0]
    return FIRST_PANELS.index(first) if first in FIRST_PANELS else len(FIRST_PANELS), "/" in panel


def _pictures(runs: list[RecordedRun]) -> list[Picture]:
    found = []
    names = dict.fromkeys(name for run in runs for name in run.pictures)
    for name in sorted(names, key=lambda name: (not name.startswith("test"), name)):
        latest, earlier = [], []
        for run in runs:
            steps = sorted(run.pictures.get(name, {}))
            spread = sorted({round(at * (len(steps) - 1) / (SHOWN_STEPS - 1)) for at in range(SHOWN_STEPS)}) if steps else []
            for at in spread:
                data = b64encode(run.pictures[name][steps[at]].read_bytes()).decode()
                (latest if at == spread[-1] else earlier).append(Figure(run, steps[at], data))
        found.append(Picture(name, latest, earlier))
    return found


def _config(runs: list[RecordedRun]) -> dict[str, Any] | None:
    """The whole config of every run that has one, and the options in which they differ."""
    runs = [run for run in runs if run.config]
    flat = [_flat(run.config) for run in runs]
    names = dict.fromkeys(name for config in flat for name in config)
    differing = [(name, [config.get(name, "") for config in flat]) for name in names if len({c.get(name) for c in flat}) > 1]
    whole = [(run, yaml.safe_dump(run.config, sort_keys=False)) for run in runs]
    return {"whole": whole, "differing": differing} if runs else None


def _flat(config: dict[str, Any], above: str = "") -> dict[str, str]:
    found = {}
    for key, value in config.items():
        name = (f"{above}.{key}" if above else str(key)).replace(".init_args", "").replace(".class_path", "")
        if isinstance(value, dict) and value:
            found |= _flat(value, name)
        elif not any(hidden in f"{name}." for hidden in HIDDEN):
            found[name] = "null" if value is None else str(value)
    return found


def _environment(runs: list[RecordedRun]) -> list[tuple[str, list[str], bool]]:
    """What the runs ran on: name, value in each, and whether they differ."""
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.environment):
        values = ["" if (value := run.environment.get(key)) is None else str(value) for run in runs]
        rows.append((key.replace("_", " "), values, len(set(values)) > 1))
    return rows
