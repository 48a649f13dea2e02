"""RESULTS.md, made of the records in results/.

uv run python -m benchmarks.results [--check]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.markdown import commands, number, paragraph, table
from benchmarks.records import RECORDS, is_short, read_records
from benchmarks.row import LIST, Group, Row, read_rows
from benchmarks.row_time import HOURS
from benchmarks.stream_record import read_elsewhere, show_stream
from benchmarks.stream_row import StreamRow

RESULTS = Path("RESULTS.md")
OUTLINE = Path("benchmarks") / "results.md.j2"
SPLITS = {"vinyals": "Vinyals split", "background_evaluation": "background / evaluation", "random_1200_423": "random 1200/423"}

TRANSCRIBED = "Numbers that were written down by hand, before there were records. They wait for the program to run them again."
SHORT = "They ended long before the budget that stands beside them, and say nothing of what the method reaches."
ROTATIONS = {"train": "upright at test", "all": "turned classes at test too", "none": "upright"}


class Results:
    """What the outline of RESULTS.md can ask for.

    Args:
        rows: as benchmarks/rows.yaml lists them.
        records: by their names.
    """

    def __init__(self, rows: list[Row | StreamRow], records: dict[str, dict[str, Any]]):
        self.listed, self.records = rows, records
        self.groups: dict[str, Group] = {row.group.name: row.group for row in rows if isinstance(row, Row)}
        self.shown: set[str] = set()

    def group(self, name: str) -> str:
        """The tables of a group: rows of the program, then what was written down before there were records, then short runs."""
        group = self.groups[name]
        found = {key: record for key, record in self.records.items() if record.get("group") == name}
        self.shown |= found.keys()
        short = {key: record for key, record in found.items() if is_short(record)}
        whole = {key: record for key, record in found.items() if key not in short and record["kind"] == "row"}
        written = {key: record for key, record in found.items() if key not in short and key not in whole}
        parts = [f"### {group.title}", paragraph(group.text)] if group.text else [f"### {group.title}"]
        parts += [self._table(group, whole)] if whole else ["No row has been trained to its end yet."]
        parts += _notes(whole)
        if written:
            parts += ["#### Transcribed", TRANSCRIBED, self._table(group, written), *_notes(written)]
        if short:
            parts += ["#### Short runs", SHORT, self._table(group, short, compared=False), *_notes(short)]
        waiting = [
            row
            for row in self.listed
            if isinstance(row, Row) and row.group == group and row.name not in whole and row.name not in written
        ]
        if waiting:
            parts += [paragraph(f"Waiting to be trained: {'; '.join(self._waiting(row) for row in waiting)}.")]
        return "\n\n".join(parts)

    def _table(self, group: Group, found: dict[str, dict[str, Any]], compared: bool = True) -> str:
        """Comparable rows stand together, the best of them first; with what is said of each beside the published number."""
        labels = [score.label for score in group.scores]
        sign = 1 if group.lower_is_better else -1

        def place(item: tuple[str, dict[str, Any]]) -> tuple:
            protocol, first = item[1]["protocol"], item[1]["scores"].get(labels[0])
            mean = first["mean"] if first is not None else None
            task = (protocol.get("data", ""), protocol.get("ways") or 0, protocol.get("shots") or 0)
            return (*task, bool(protocol.get("transductive")), mean is None, mean is not None and sign * mean, item[0])

        ordered = sorted(found.items(), key=place)
        header = ["method", "task", "evaluation", "training", *labels, "published", "against it", "record"]
        lines = [self._line(name, record, labels, group, compared) for name, record in ordered]
        for predictor in dict.fromkeys(name for record in found.values() for name in record.get("references", {})):
            values = next(
                record["references"][predictor] for record in found.values() if predictor in record.get("references", {})
            )
            lines.append([predictor, "", "", "", *(number(value, group.digits) for value in values), "", "", ""])
        return table(header, lines)

    def _line(self, name: str, record: dict[str, Any], labels: list[str], group: Group, compared: bool) -> list[str]:
        scores = [record["scores"].get(label) for label in labels]
        published = [score and score["published"] for score in scores]
        theirs = " / ".join(
            "-" if score is None else as_published(score["published"], score["published_ci95"]) for score in scores
        )
        return [
            record["method"],
            _task(record["protocol"]),
            "transductive" if record["protocol"].get("ways") and record["protocol"].get("transductive") else "",
            _training(record),
            *("" if score is None else number((score["mean"], score["ci95"]), group.digits) for score in scores),
            f"{theirs} ({record['source']})" if any(value is not None for value in published) else "",
            verdict([score for score in scores if score], group) if compared else "",
            f"[{name}](results/{name}.json)",
        ]

    def record(self, name: str) -> str:
        """A record that is no row: its text, tables and commands in their order."""
        if name not in self.records:
            raise ValueError(f"{OUTLINE} asks for a record {name}, and there is no {RECORDS / name}.json")
        self.shown.add(name)
        parts = []
        for part in self.records[name]["content"]:
            if "text" in part:
                parts.append(paragraph(part["text"]))
            elif "commands" in part:
                parts.append(commands(part["commands"]))
            else:
                parts.append(table(part["columns"], part["rows"]))
        return "\n\n".join(parts)

    def _waiting(self, row: Row) -> str:
        """A row that has no record, with the published number and the hours of a training."""
        published = " / ".join("-" if one is None else as_published(*one) for one in row.published)
        hours = self.records.get(HOURS, {"hours": {}})["hours"].get(row.training)
        said = ", ".join(part for part in (published, f"{hours:.2g} h" if hours else "") if part)
        return row.name + (f" ({said})" if said else "") + (f", not here: {row.why_not}" if row.why_not else "")

    def hours(self) -> str:
        """Of which machine the hours of the waiting rows are."""
        if HOURS not in self.records:
            return "A row that waits has not been trained to its end yet."
        self.shown.add(HOURS)
        found = self.records[HOURS]
        cores = f"{found['threads']} core{'s' * (found['threads'] > 1)}"
        return paragraph(
            "A row that waits is one whose training takes longer than was to be had: its hours stand beside it where they were "
            "measured, those of "
            f"{cores} of {found['device']}, by a few measured steps and its whole budget."
        )

    def stream(self, name: str) -> str:
        """The tables of a stream: those of the program, then what was written down before there were records."""
        parts = []
        if name in self.records:
            self.shown.add(name)
            parts += show_stream(self.records[name], read_elsewhere().get(name, {}))
        if (written := f"{name}_transcribed") in self.records:
            parts += ["#### Transcribed", TRANSCRIBED, self.record(written)]
        return "\n\n".join(parts) if parts else "Waiting to be run."


def verdict(scores: list[dict[str, Any]], group: Group) -> str:
    """Whether each score that has a published one is within both intervals of it."""
    found = []
    for score in scores:
        if score["published"] is None:
            continue
        if score["mean"] is None:
            found.append("**not finite**")
            continue
        gap = score["published"] - score["mean"]
        gap = -gap if group.lower_is_better else gap
        within = (score["ci95"] or 0.0) + (score["published_ci95"] or 0.0)
        found.append(f"**short by {gap:.{group.digits}f}**" if gap > within + 1e-9 else "reached")
    return " / ".join(found if len(set(found)) > 1 else found[:1])


def as_published(mean: float | None, ci95: float | None) -> str:
    """A number of a paper, with the digits that it prints."""
    return "-" if mean is None else f"{mean:g}" + (f" ± {ci95:g}" if ci95 is not None else "")


def _task(protocol: dict[str, Any]) -> str:
    ways, shots = protocol.get("ways"), protocol.get("shots")
    parts = [f"{ways}-way {shots}-shot" if ways else f"{shots}-shot" if shots else ""]
    split = protocol.get("split_protocol")
    parts += [SPLITS.get(split, split) if split else "", ROTATIONS.get(protocol.get("rotate"), "")]
    return ", ".join(part for part in parts if part)


def _training(record: dict[str, Any]) -> str:
    """Steps, end and time."""
    steps, budget = record["steps"], record["budget"]
    done = "an unknown number" if steps is None else f"{steps:,}"
    parts = [f"{done} of {budget:,} steps" if is_short(record) else f"{done} steps"]
    if record.get("flat"):
        parts.append("flat")
    if record.get("checkpoint_step") not in (None, steps):
        parts.append(f"best at {record['checkpoint_step']:,}")
    if record.get("seconds"):
        parts.append(_time(record))
    return ", ".join([*parts, record["remark"]] if record.get("remark") else parts)


def _time(record: dict[str, Any]) -> str:
    seconds, worked = record["seconds"], record.get("processor_seconds")
    hours = f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
    if not worked:
        return hours
    return (
        f"{hours} on a shared machine, {worked / 60:.0f} min of a core"
        if record["shared"]
        else f"{hours}, {worked / 60:.0f} min of a core"
    )


def _notes(found: dict[str, dict[str, Any]]) -> list[str]:
    return [paragraph(f"{name}: {record['note']}") for name, record in found.items() if record.get("note")]


def write(rows: list[Row | StreamRow], records: dict[str, dict[str, Any]], outline: Path = OUTLINE) -> str:
    """The text of RESULTS.md.

    Raises:
        ValueError: a record is not in the outline.
    """
    results = Results(rows, records)
    environment = Environment(
        loader=FileSystemLoader(outline.parent), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    asked = {"group": results.group, "record": results.record, "stream": results.stream, "hours": results.hours}
    text = environment.get_template(outline.name).render(asked)
    if unseen := sorted(records.keys() - results.shown):
        raise ValueError(f"{outline} shows no record {', '.join(unseen)}; name it there, or its group")
    return text


def main(args: list[str] | None = None) -> int:
    """Writes RESULTS.md, or says whether it is what the records give."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where RESULTS.md differs")
    options = parser.parse_args(args)
    try:
        text = write(read_rows(LIST), read_records(RECORDS))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not options.check:
        RESULTS.write_text(text)
        return 0
    if RESULTS.read_text() != text:
        print("error: RESULTS.md is not what the records give; run python -m benchmarks.results", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
