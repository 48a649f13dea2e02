"""What accuracy costs: accuracy against bytes kept, gradients and seconds, a point for each method and budget.

uv run python -m benchmarks.frontier --stream split_mnist [--methods ER DER++] [--memories 50 200 1000] --data_dir DIR

The numbers of each method are those that `benchmarks.meta_continual` has on record as meta-learned.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.continual.metrics import mean_and_interval
from app.errors import InputError
from benchmarks.continual_candidates import METHODS, Candidate
from benchmarks.markdown import number
from benchmarks.measure import describe_machine, one_quiet_thread, print_table
from benchmarks.meta_continual import LEARNED
from benchmarks.meta_continual import NAME as SEARCHED
from benchmarks.meta_continual_search import STREAMS, deploy
from benchmarks.records import RECORDS, read_record, write_record
from callbacks.run_identity import git_commit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, PICTURE = "frontier", Path("docs") / "pictures" / "frontier.png"
COSTS = {"memory_bytes": "bytes kept", "gradients": "gradients of single images", "seconds": "processor seconds of a stream"}


def numbers_of(stream: str, method: str, folder: Path = RECORDS) -> dict[str, float]:
    """The meta-learned numbers of a method that are on record.

    Raises:
        InputError: there are none.
    """
    for row in (read_record(SEARCHED, folder) or {"rows": []})["rows"]:
        if (row["stream"], row["source"], row["method"], row["numbers"]) == (stream, "digits", method, LEARNED):
            return {name: float(value) for name, value in (part.split(" ") for part in row["found"].split(", "))}
    raise InputError(
        f"--methods {method} has no meta-learned numbers on record for {stream}; run benchmarks.{SEARCHED} --stream {stream} "
        f"--methods {method} --record first"
    )


def budgets(candidate: Candidate, memories: list[int]) -> list[Candidate]:
    """The method with each of these memories; one alone where it has none."""
    if "memory" not in candidate.options:
        return [candidate]
    return [candidate._replace(options={**candidate.options, "memory": memory}) for memory in memories]


def point_of(stream: str, method: str, candidate: Candidate, options: argparse.Namespace) -> dict[str, Any]:
    """A method and budget on the unseen orders."""
    made = candidate.made(**numbers_of(stream, method))
    found = deploy(STREAMS[stream], made, options.orders, "test", options.images, options.data_dir)
    return {
        "method": method,
        "memory": candidate.options.get("memory"),
        "accuracy": mean_and_interval(found.accuracies),
        "memory_bytes": found.memory_bytes,
        "gradients": found.gradients,
        "seconds": found.seconds,
    }


def drawn(points: list[dict[str, Any]]) -> "Figure":
    """Accuracy against each cost; the points of a method are joined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(COSTS), 3.9), layout="constrained")
    for axes, (cost, label) in zip(figure.subplots(1, len(COSTS), sharey=True), COSTS.items(), strict=True):
        for colour, method in enumerate(dict.fromkeys(point["method"] for point in points)):
            own = sorted((point for point in points if point["method"] == method), key=lambda point: point["memory"] or 0)
            percent = [[100 * value for value in point["accuracy"]] for point in own]
            means, intervals = zip(*percent, strict=True)
            places = [point[cost] for point in own]
            axes.errorbar(places, means, intervals, marker="o", color=f"C{colour}", capsize=2, linewidth=1.2, label=method)
        if cost == "memory_bytes":
            axes.set_xscale("symlog", linthresh=1e4)  # some keep nothing
        axes.set_xlim(left=0)
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("accuracy in %", fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def shown(point: dict[str, Any]) -> dict[str, str]:
    """A point as it is printed."""
    return {
        "method": point["method"],
        "memory (images)": f"{point['memory']:,}" if point["memory"] else "",
        "accuracy in %": number([100 * value for value in point["accuracy"]], 1),
        "bytes kept": f"{point['memory_bytes']:,}",
        "gradients": f"{point['gradients']:,}",
        "processor s of a stream": f"{point['seconds']:.2f}",
    }


def record_of(stream: str, points: list[dict[str, Any]], options: argparse.Namespace, commit: str | None) -> dict[str, Any]:
    """What goes on record."""
    text = (
        f"{stream.removesuffix('_mnist').capitalize()} MNIST, {options.images} images an experience, {options.orders} unseen "
        "orders that are learned at once, each method with its meta-learned numbers as the table above prints them, found with a "
        "memory of 200 images. The seconds are of the processor, with the images and the tests, shared by all streams. "
        "[The picture](docs/pictures/frontier.png) shows the same."
    )
    memories = " ".join(map(str, options.memories))
    command = (
        f"uv run python -m benchmarks.frontier --stream {stream} --methods {' '.join(options.methods)} --memories {memories} "
        f"--images {options.images} --orders {options.orders} --data_dir DIR --record"
    )
    table = {"columns": list(shown(points[0])), "rows": [list(shown(point).values()) for point in points]}
    content = [{"text": text}, table, {"commands": [command]}]
    return {"kind": "benchmark", "content": content, "points": points, "machine": describe_machine(), "commit": commit}


def main(argv: list[str] | None = None) -> int:
    """Prints the points, and puts them on record with their picture if wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stream", required=True, choices=STREAMS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS], help="default: all")
    parser.add_argument("--memories", nargs="+", type=int, default=[50, 200, 1000], help="images (default 50 200 1000)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the files of MNIST")
    parser.add_argument("--images", type=int, default=500, help="training images of an experience (default 500)")
    parser.add_argument("--orders", type=int, default=20, help="unseen orders, with the seeds 0, 1, ... (default 20)")
    parser.add_argument("--record", action="store_true", help=f"put the points on record, and draw them in {PICTURE}")
    options = parser.parse_args(argv)
    for name, least in (("images", options.images), ("orders", options.orders), ("memories", min(options.memories))):
        if least < 1:
            parser.error(f"--{name} is {least}; give at least 1")
    one_quiet_thread()
    commit, points = git_commit(), []
    try:
        for method in options.methods:
            for candidate in budgets(METHODS[method], options.memories):
                points.append(point_of(options.stream, method, candidate, options))
                print(shown(points[-1]), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(f"{options.stream}, {options.orders} unseen orders", [shown(point) for point in points])
    if options.record:
        write_record(NAME, record_of(options.stream, points, options, commit))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        drawn(points).savefig(PICTURE, dpi=100, metadata={"Software": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
