"""The table of a stream: every method with its own config, over several seeds, beside what it cost.

uv run python -m benchmarks.continual --stream rotated_mnist [--methods er la_maml] [--seeds 3] [--tune 2]

Every cell is a run of train.py in a folder of its own; a finished cell is not run again unless its config has changed, and
one that was broken off goes on.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.continual.metrics import Measure, mean_and_interval, measure_of
from benchmarks.continual_runs import Cell, glances_for, memory_of, methods_of, repetitions, run_all, samples_for
from benchmarks.continual_together import run_seeds
from benchmarks.continual_tuning import in_words, tune
from benchmarks.stream_record import seeds_of, write_stream_record

STREAMS = (
    "glyphs_stream",
    "many_permuted_mnist",
    "omniglot_stream",
    "osaka",
    "permuted_mnist",
    "rotated_mnist",
    "sine_stream",
    "split_mnist",
)
SCENARIOS = {"split_mnist": ("class", "task", "domain")}
PLACES = (0, 1, 2, 5, 4)  # of the metrics that are shown, in the order of a measure's


def rows_of(results: dict[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and view, over the seeds."""
    found = []
    measure = measure_of(next(iter(results.values())))
    prequential, first = measure.prequential, measure.names[0]
    for method, scenario in dict.fromkeys((cell.method, cell.scenario) for cell in results):
        runs = [result for cell, result in results.items() if (cell.method, cell.scenario) == (method, scenario)]
        for view in runs[0]["views"] or ["boundary-free"]:
            names = runs[0]["views"].get(view, {})
            scores = {name: mean_and_interval([one["views"][view][name]["mean"] for one in runs]) for name in names}
            scores[prequential] = mean_and_interval([one[prequential]["mean"] for one in runs])
            scores = {name: score for name, score in scores.items() if score is not None}  # else it is undefined
            cost = {name: sum(one["cost"][name] for one in runs) / len(runs) for name in runs[0]["cost"]}
            trained = f"{view}-incremental" if names else view
            trained += ", trained class-incrementally" * (scenario == "class" and view == "task")
            (rate,) = {cell.rate for cell in results if (cell.method, cell.scenario) == (method, scenario)}
            ranked = [(one["views"][view][first] if first in names else one[prequential])["mean"] for one in runs]
            row = {"method": method, "view": trained, "seeds": len(runs), "rate": rate, "scores": scores, "cost": cost}
            found.append(row | {"by_seed": ranked, "measure": measure.score})
    return compared(found)


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with what each lacks to the best of its view, seed by seed: a difference of pairs, which an order that is hard
    for all does not blur.
    """
    best = {}
    for row in rows:
        if row["view"] not in best or _rank(row) > _rank(best[row["view"]]):
            best[row["view"]] = row
    found = []
    for row in rows:
        pairs = zip(row["by_seed"], best[row["view"]]["by_seed"], strict=False)
        found.append(row | {"to_best": None if row is best[row["view"]] else mean_and_interval([a - b for a, b in pairs])})
    return found


def _rank(row: dict[str, Any]) -> float:
    """The mean score, where more is better."""
    return measure_of(row).sign * mean(row["by_seed"])


def shown(measure: Measure) -> tuple[str, ...]:
    """The names of the scores in the table."""
    return *(measure.names[place] for place in PLACES), measure.prequential


def tables(rows: list[dict[str, Any]], stream: str) -> Iterable[Table]:
    """A table for each view, the best score first."""
    measure = measure_of(rows[0])
    names, what = shown(measure), f"accuracy in {measure.unit}" if measure.unit else "squared error"
    for view in dict.fromkeys(row["view"] for row in rows):
        own = [row for row in rows if row["view"] == view]
        table = Table(title=f"{stream}, {view}: {what}, mean ± 95 % interval, {seeds_of(own)}", title_justify="left")
        table.add_column("method")
        costs = ["memory (KiB)", "samples", "gradients", "seconds", *["rate"] * any(row["rate"] for row in own)]
        worst = "least (seed)" if measure.sign > 0 else "largest (seed)"
        for name in (names[0], worst, "to the best", *names[1:], *costs):
            table.add_column(name, justify="right")
        for row in sorted(own, key=_rank, reverse=True):
            cells = [_cell(row["scores"].get(name), measure) for name in names]
            cells[1:1] = [_worst(row["by_seed"], measure), _cell(row["to_best"], measure)]
            cost = row["cost"]
            cells += [f"{cost['memory_bytes'] / 1024:,.0f}", f"{cost['samples']:,.0f}", f"{cost['gradients']:,.0f}"]
            cells += [f"{cost['seconds']:.1f}"]
            table.add_row(row["method"], *cells, *([f"{row['rate']:g}"] if row["rate"] else []))
        yield table


def _cell(value: tuple[float, float | None] | None, measure: Measure) -> str:
    if value is None:
        return "-"
    return measure.number(value[0], 1) + (f" ± {measure.number(value[1], 1)}" if value[1] is not None else "")


def _worst(by_seed: list[float], measure: Measure) -> str:
    """The worst score, and the seed that had it: the worst order of classes."""
    worst = min(by_seed, key=lambda score: measure.sign * score)
    return f"{measure.number(worst, 1)} ({by_seed.index(worst)})"


def memories(options: argparse.Namespace, methods: list[str], root: Path, data_dir: str) -> dict[tuple[str, str | None], int]:
    """How many samples each method keeps in each scenario that `--memory_kib` sets equal."""
    if options.memory_kib is None:
        return {}
    kept = {name: count for name in methods if (count := memory_of(options.stream, name))}
    pilots = {
        (name, scenario): [Cell(name, scenario, 0, memory=count * factor) for factor in (1, 2)]
        for name, count in kept.items()
        for scenario in SCENARIOS.get(options.stream, (None,))
    }
    found = run_all(_flat(pilots), options.processes, options.stream, root / "pilots", data_dir, "--trainer.max_steps=1")
    memory = {}
    for (name, scenario), pair in pilots.items():
        fitting = samples_for(1024 * options.memory_kib, *((pilot.memory, found[pilot]) for pilot in pair))
        if fitting < 1:
            raise RuntimeError(f"--memory_kib {options.memory_kib:g} has no room for a sample of {name}; give more")
        memory[name, scenario] = fitting
    return memory


def all_glances(
    options: argparse.Namespace, methods: list[str], memory: dict[tuple[str, str | None], int], root: Path, data_dir: str
) -> dict[str, int]:
    """How often each method learns what it gets that `--gradients_per_sample` sets equal."""
    if options.gradients_per_sample is None:
        return {}
    repeating = [name for name in methods if repetitions(options.stream, name)]
    first, *_ = SCENARIOS.get(options.stream, (None,))  # the config's own
    pilots = {name: [Cell(name, None, 0, count, memory.get((name, first))) for count in (1, 2)] for name in repeating}
    found = run_all(_flat(pilots), options.processes, options.stream, root, data_dir)
    return {name: glances_for(options.gradients_per_sample, *map(found.get, pair)) for name, pair in pilots.items()}


def _flat(pilots: dict[Any, list[Cell]]) -> list[Cell]:
    return [pilot for pair in pilots.values() for pilot in pair]


def main() -> int:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stream", required=True, choices=STREAMS)
    parser.add_argument("--methods", nargs="+", help="default: all with a config for the stream")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of stream and weights (default 3)")
    parser.add_argument(
        "--tune", type=int, help="validation streams on which every learning rate is chosen (default: configs' own)"
    )
    parser.add_argument("--data_dir", default="data", help="folder of the files of MNIST")
    parser.add_argument("--gradients_per_sample", type=float, help="equal budget: every method repeats itself to take so many")
    parser.add_argument("--memory_kib", type=float, help="equal budget: every memory holds what fits, beside what else is kept")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, a thread each (default 2)")
    parser.add_argument("--record", action="store_true", help="put the table on record, in results/<stream>.json")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/continual"), help="folder of the runs")
    options = parser.parse_args()
    there = methods_of(options.stream)
    if unknown := sorted(set(options.methods or []) - set(there)):
        print(
            f"error: --methods {', '.join(unknown)}: no config for {options.stream}; there are {', '.join(there)}",
            file=sys.stderr,
        )
        return 1
    for name in ("seeds", "processes", "tune"):
        if (count := getattr(options, name)) is not None and count < 1:
            print(f"error: --{name} is {count}; give at least 1", file=sys.stderr)
            return 1
    if options.record and (options.gradients_per_sample or options.memory_kib):
        print(
            "error: --record is for the methods' own budgets; leave out --gradients_per_sample and --memory_kib", file=sys.stderr
        )
        return 1
    if options.tune and options.stream == "sine_stream":
        print("error: --tune chooses rates by accuracies, and sine_stream has errors; leave it out", file=sys.stderr)
        return 1
    for name in ("gradients_per_sample", "memory_kib"):
        if (budget := getattr(options, name)) is not None and not 0 < budget < math.inf:
            print(f"error: --{name} is {budget}; give a number above 0", file=sys.stderr)
            return 1
    root, data_dir = (options.out / options.stream).absolute(), str(Path(options.data_dir).absolute())
    try:
        methods = options.methods or there
        memory = memories(options, methods, root, data_dir)
        glances = all_glances(options, methods, memory, root, data_dir)
        cells = [
            Cell(method, scenario, seed, glances.get(method), memory.get((method, scenario)))
            for seed in range(options.seeds)
            for method in methods
            for scenario in SCENARIOS.get(options.stream, (None,))
        ]
        first = [cell for cell in cells if cell.seed == 0]
        tunings = tune(first, options.tune, options.processes, options.stream, root, data_dir) if options.tune else {}
        rates = {cell: tuning.rate for cell, tuning in tunings.items()}
        cells = [cell._replace(rate=rates.get(cell._replace(seed=0))) for cell in cells]
        results = run_seeds(cells, options.processes, options.stream, root, data_dir)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = rows_of(results)
    console = Console()
    console = console if console.is_terminal else Console(width=150)
    for table in tables(rows, options.stream):
        console.print(table)
    formulas = results[cells[0]]["formulas"]
    console.print("\n".join(f"{name}: {escape(formulas[name])}" for name in shown(measure_of(rows[0]))))
    console.print("memory: what a method keeps beside the network; gradients: of the loss of single samples")
    console.print("both they and the seconds are of all learning, also of a network that is trained when it is to be scored")
    console.print("to the best: mean of the differences to the first row, seed by seed; the order holds where 0 is not within")
    console.print("least (seed), largest (seed): the worst score of a seed, and which, the worst order of the stream")
    console.print("-: undefined, results.json of the run says why")
    console.print(rule := in_words(tunings, options.stream))
    rows = [row | {"rates": rule} for row in rows]
    (root / "table.json").write_text(json.dumps({"rows": rows, "formulas": formulas}, indent=2) + "\n")
    print(f"{root / 'table.json'}")
    if options.record:
        write_stream_record(options.stream, rows, _command(options))
    return 0


def _command(options: argparse.Namespace) -> str:
    """What repeats the table."""
    parts = [f"uv run python -m benchmarks.continual --stream {options.stream} --seeds {options.seeds} --data_dir DIR --record"]
    parts += [f"--methods {' '.join(options.methods)}"] if options.methods else []
    parts += [f"--tune {options.tune}"] if options.tune else []
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
