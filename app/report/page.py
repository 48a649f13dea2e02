"""The page."""

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import yaml

from app.report.chart import Line, line_chart
from app.report.html import number, swatch, table
from app.report.recorded_run import RecordedRun
from app.report.results_table import adaptation_chart, headline, results_tables

STYLE = Path(__file__).with_name("page.css")
FIRST_PANELS = ("val", "train", "stream", "test", "system")
SHOWN_STEPS = 4  # of a picture that was drawn at many
HIDDEN = ("logger.", "callbacks", "default_root_dir", "ckpt_path")  # of the config, where runs always differ


def page(runs: list[RecordedRun]) -> str:
    """The runs side by side, in one HTML text that needs nothing else."""
    sections = {
        "results": _summary(runs) + results_tables(runs) + adaptation_chart(runs),
        "curves": _curves(runs),
        "classes": _tables(runs),
        "pictures": _pictures(runs),
        "config": _configs(runs),
        "environment": _environment(runs),
    }
    sections = {name: content for name, content in sections.items() if content}
    links = "".join(f'<a href="#{name}">{name}</a>' for name in sections)
    legend = "".join(swatch(colour, run.label) for colour, run in enumerate(runs))
    body = "".join(f'<h2 id="{name}">{name.capitalize()}</h2>{content}' for name, content in sections.items())
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head><body><h1>{escape(title)}</h1>"
        f"<p class='soft'>{escape(_subtitle(runs))}</p>"
        f'<nav>{links}<span class="runs">{legend}</span></nav>{body}</body></html>'
    )


def _subtitle(runs: list[RecordedRun]) -> str:
    pairs = list(dict.fromkeys(" on ".join(name for name in run.names if name) for run in runs))
    return "; ".join(pair for pair in pairs if pair)


def _summary(runs: list[RecordedRun]) -> str:
    rows = []
    for colour, run in enumerate(runs):
        method, data = run.names
        seed = run.config.get("seed_everything", run.results.get("seed", ""))
        step = "" if run.last_step is None else number(run.last_step)
        rows.append(
            [
                swatch(colour, run.label),
                f'<td class="score">{headline(run)}',
                escape(method),
                escape(data),
                f'<td class="number">{step}',
                f'<td class="number">{seed}',
                f'<td class="text">{escape(str(run.path))}',
            ]
        )
    heads = ["run", "score", "method", "data", '<th class="number">last step', '<th class="number">seed', "folder"]
    return table(heads, rows, style="summary")


def _curves(runs: list[RecordedRun]) -> str:
    panels: dict[str, list[str]] = {}
    for run in runs:
        for name in run.scalars:
            names = panels.setdefault(name.rpartition("/")[0] or "other", [])
            if name not in names:
                names.append(name)
    order = sorted(panels, key=lambda panel: (*_place(panel), panel))
    parts = []
    for panel in order:
        charts = []
        for name in sorted(name for name in panels[panel] if not name.endswith("_ci95")):
            lines = [_line(run, colour, name) for colour, run in enumerate(runs)]
            if any(len(line.points) > 1 for line in lines):
                charts.append(line_chart(name, lines, may_be_logarithmic="/lr" not in name))
        if charts:
            grid = f'<div class="charts">{"".join(charts)}</div>'
            folded = "/" in panel  # one chart for each layer
            parts.append(f"<details><summary>{panel}</summary>{grid}</details>" if folded else f"<h3>{escape(panel)}</h3>{grid}")
    return "".join(parts)


def _line(run: RecordedRun, colour: int, name: str) -> Line:
    points, half_widths = run.scalars.get(name, []), dict(run.scalars.get(f"{name}_ci95", []))
    return Line(run.label, colour, points, [half_widths.get(step) for step, _ in points] if half_widths else ())


def _place(panel: str) -> tuple[int, bool]:
    first = panel.partition("/")[0]
    return FIRST_PANELS.index(first) if first in FIRST_PANELS else len(FIRST_PANELS), "/" in panel


def _tables(runs: list[RecordedRun]) -> str:
    parts = [_classes(runs)] if sum("classes" in run.tables for run in runs) > 1 else []
    for colour, run in enumerate(runs):
        for title, (columns, *rows) in run.tables.items():
            if rows:
                cells = [[_table_cell(value) for value in row] for row in rows]
                shown = table(list(map(escape, columns)), cells, "tall")
                of = f" of {swatch(colour, run.label)}" if len(runs) > 1 else ""
                folded = f"<details><summary>{title}{of}</summary>{shown}</details>"
                parts.append(folded if len(runs) > 1 else f"<h3>{title}</h3>{shown}")
    return "".join(parts)


def _classes(runs: list[RecordedRun]) -> str:
    """The accuracy of every class in every run that has classes, the class that is worst on average first."""
    having = [(colour, run) for colour, run in enumerate(runs) if "classes" in run.tables]
    columns = [{row[0]: row for row in run.tables["classes"][1:]} for _, run in having]
    found: dict[str, list[float]] = {}
    for column in columns:
        for name, row in column.items():
            found.setdefault(name, []).append(float(row[4]))
    rows = []
    for name in sorted(found, key=lambda name: sum(found[name]) / len(found[name])):
        cells = []
        for column in columns:
            shown = f"{100 * float(column[name][4]):.1f} <span class='soft'>of {column[name][2]}</span>" if name in column else ""
            cells.append(f'<td class="number">{shown}')
        rows.append([f'<td class="text">{escape(name)}', *cells])
    heads = [f'<th class="number">{swatch(colour, run.label)}' for colour, run in having]
    return f"<h3>accuracy of each class (%), of so many queries</h3>{table(['class', *heads], rows, 'tall')}"


def _table_cell(value: str) -> str:
    try:
        return f'<td class="number">{number(int(value) if value.isdigit() else float(value))}'
    except ValueError:
        return f'<td class="text">{escape(value)}'


def _pictures(runs: list[RecordedRun]) -> str:
    parts = []
    names = dict.fromkeys(name for run in runs for name in run.pictures)
    for name in sorted(names, key=lambda name: (not name.startswith("test"), name)):
        latest, earlier = [], []
        for colour, run in enumerate(runs):
            steps = sorted(run.pictures.get(name, {}))
            spread = sorted({round(at * (len(steps) - 1) / (SHOWN_STEPS - 1)) for at in range(SHOWN_STEPS)}) if steps else []
            for at in spread:
                caption = f"{swatch(colour, run.label)} <span class='soft'>step {steps[at]:,}</span>"
                shown = f"<figure><figcaption>{caption}</figcaption>{_image(run.pictures[name][steps[at]], name)}</figure>"
                (latest if at == spread[-1] else earlier).append(shown)
        parts.append(f'<h3>{escape(name)}</h3><div class="pictures">{"".join(latest)}</div>')
        if earlier:
            grid = f'<div class="pictures">{"".join(earlier)}</div>'
            parts.append(f"<details><summary>{escape(name)}, earlier</summary>{grid}</details>")
    return "".join(parts)


def _image(path: Path, name: str) -> str:
    data = b64encode(path.read_bytes()).decode()
    return f'<img loading="lazy" alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _configs(runs: list[RecordedRun]) -> str:
    runs = [run for run in runs if run.config]
    flat = [_flat(run.config) for run in runs]
    differing = [key for key in dict.fromkeys(key for config in flat for key in config) if len(_values(flat, key)) > 1]
    rows = [[f"<code>{escape(key)}</code>", *(_config_cell(config, key) for config in flat)] for key in differing]
    parts = []
    if rows:
        heads = ["option", *(swatch(colour, run.label) for colour, run in enumerate(runs))]
        parts.append(f"<h3>where the runs differ</h3>{table(heads, rows)}")
    for colour, run in enumerate(runs):
        text = escape(yaml.safe_dump(run.config, sort_keys=False))
        parts.append(f"<details><summary>all of {swatch(colour, run.label)}</summary><pre>{text}</pre></details>")
    return "".join(parts)


def _flat(config: dict[str, Any], above: str = "") -> dict[str, str]:
    found = {}
    for key, value in config.items():
        name = (f"{above}.{key}" if above else key).replace(".init_args", "").replace(".class_path", "")
        if isinstance(value, dict) and value:
            found |= _flat(value, name)
        elif not any(hidden in f"{name}." for hidden in HIDDEN):
            found[name] = "null" if value is None else str(value)
    return found


def _values(configs: list[dict[str, str]], key: str) -> set[str | None]:
    return {config.get(key) for config in configs}


def _config_cell(config: dict[str, str], key: str) -> str:
    return f'<td class="text">{escape(config.get(key, ""))}'


def _environment(runs: list[RecordedRun]) -> str:
    keys = list(dict.fromkeys(key for run in runs for key in run.environment))
    rows = []
    for key in keys:
        values = ["" if (value := run.environment.get(key)) is None else str(value) for run in runs]
        differs = " differs" if len(set(values)) > 1 else ""
        rows.append([escape(key.replace("_", " ")), *(f'<td class="text{differs}">{escape(value)}' for value in values)])
    heads = ["", *(swatch(colour, run.label) for colour, run in enumerate(runs))]
    return table(heads, rows) if rows else ""
