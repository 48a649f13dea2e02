"""The seeds of a method that are learned in one program, where it can."""

from importlib import import_module
from typing import Any

from app.continual.metrics import measure_of
from benchmarks.continual_runs import Cell, model_options, run_all

AT_ONCE = 20  # streams in one program at most
SLOWER = ("GDumb",)  # by `benchmarks.many_streams`: trained on its own, one network stays in the cache, and 20 do not


def run_seeds(cells: list[Cell], processes: int, stream: str, *where: Any) -> dict[Cell, dict[str, Any]]:
    """The results of all cells, as `run_all` gives them; cells that differ in nothing but following seeds are one run."""
    rows: dict[Cell, list[int]] = {}
    for cell in cells:
        rows.setdefault(cell._replace(seed=0), []).append(cell.seed)
    runs = {}
    for row, seeds in rows.items():
        for first, count in in_turn(seeds, AT_ONCE if can_go_together(stream, row.method) else 1):
            runs[row._replace(seed=first, streams=count)] = [row._replace(seed=first + number) for number in range(count)]
    found, results = run_all([*runs], processes, stream, *where), {}
    for run, own in runs.items():
        results |= {cell: of_stream(found[run], number) for number, cell in enumerate(own)}
    return {cell: results[cell] for cell in cells}


def in_turn(seeds: list[int], most: int) -> list[tuple[int, int]]:
    """First and number of the seeds that follow one another, at most so many together."""
    found: list[tuple[int, int]] = []
    for seed in sorted(seeds):
        first, count = found[-1] if found else (seed, most)
        if seed == first + count and count < most:
            found[-1] = first, count + 1
        else:
            found.append((seed, 1))
    return found


def can_go_together(stream: str, method: str) -> bool:
    """Whether several streams are learned in one program: the method can, and the network is an MLP, for which it pays."""
    from app.continual.base.method import goes_abreast  # seconds, and only where something is run

    options = model_options(stream, method)
    module, _, name = options["method"]["class_path"].rpartition(".")
    network = options.get("backbone", {}).get("class_path", "MLP")
    return network.endswith("MLP") and name not in SLOWER and goes_abreast(getattr(import_module(module), name))


def of_stream(results: dict[str, Any], number: int) -> dict[str, Any]:
    """What a run says of one of its streams; of several the costs are the mean of all."""
    if results["streams"] == 1:
        return results

    def own(score: dict[str, Any]) -> dict[str, Any]:
        return score if score["mean"] is None else {"mean": score["of_streams"][number], "ci95": None}

    views = {view: {name: own(score) for name, score in scores.items()} for view, scores in results["views"].items()}
    prequential = measure_of(results).prequential
    return {**results, "streams": 1, "views": views, prequential: own(results[prequential])}
