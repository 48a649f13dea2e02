"""Continual methods with numbers found by hand, with meta-learned ones, and with a meta-learned initialisation too.

uv run python -m benchmarks.meta_continual --stream split_mnist [--methods ER DER++] [--source omniglot] --data_dir DIR

By hand is a grid on validation streams; by gradients are short streams. What is found serves unseen orders: the same memory,
the same steps. One thread, processor seconds: what else the machine does counts little.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.continual.metrics import mean_and_interval
from app.errors import InputError
from benchmarks.continual_candidates import METHODS, Candidate
from benchmarks.markdown import number
from benchmarks.measure import describe_machine, one_quiet_thread, print_table
from benchmarks.meta_continual_search import STREAMS, Search, Short, Stream, by_gradients, by_hand, deploy
from benchmarks.records import RECORDS, read_record, write_record
from callbacks.run_identity import git_commit

NAME, HAND = "meta_continual", "by hand"
LEARNED, INITIALISED = "meta-learned", "meta-learned, initialisation too"
KEY = ("stream", "source", "method", "numbers")
SHARED = {
    "digits": (
        "All searches use the official training images of MNIST: their first 50,000 to learn and the last 10,000 to score. "
        "So classes and training images are those of the streams that are measured; orders, draws, first weights and the test "
        "images are not. An initialisation that was learned on them has seen the digits before."
    ),
    "omniglot": (
        "Meta-learned on background classes of Omniglot: no class or image is shared with the streams that are measured, "
        "nor with the validation streams of the grid, which are of MNIST's official training images."
    ),
}

STEPS = (
    "A step of a search is one of a single stream, on a batch; forward mode takes as many as there are numbers, each with a "
    "tangent, and for an initialisation, which has twice the outer steps, every step is taken twice and gone back through. "
    "For EWC it begins with a strength of 1: with its default of 100 the steps run off."
)


def rows_of(stream: str, method: str, short: Short, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each way to the numbers of a method, the one by hand first."""
    kept = hand_on_record(stream, method, options) if options.keep_hand else None
    base, commit = kept["accuracies"] if kept else [], git_commit()  # before the record is written, which is a change
    for name, search in searches(STREAMS[stream], METHODS[method], short, options, bool(kept)):
        found = deploy(STREAMS[stream], search.method, options.orders, "test", options.images, options.data_dir)
        base = base or found.accuracies
        less = mean_and_interval([own - hand for own, hand in zip(found.accuracies, base, strict=True)])
        yield {
            "stream": stream,
            "source": short.source,
            "method": method,
            "numbers": name,
            "found": search.words,
            "accuracies": found.accuracies,
            "accuracy": mean_and_interval(found.accuracies),
            "to_hand": None if name == HAND else less,
            "search_seconds": search.seconds,
            "search_steps": search.steps,
            "steps": found.steps,
            "memory_bytes": found.memory_bytes,
            "gradients": found.gradients,
            "images": options.images,
            "tests": STREAMS[stream].tests,
            "machine": describe_machine(),
            "commit": commit,
            "command": _command(options, method),
        }


def hand_on_record(stream: str, method: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """The row by hand of the same sizes; null where there is none."""
    for row in (read_record(NAME) or {"rows": []})["rows"]:
        same = tuple(row[key] for key in KEY) == (stream, options.source, method, HAND)
        same = same and (row["images"], len(row["accuracies"])) == (options.images, options.orders)
        if same and f"--validation {options.validation} " in row["command"]:
            return row
    return None


def searches(
    stream: Stream, candidate: Candidate, short: Short, options: argparse.Namespace, only_gradients: bool
) -> Iterator[tuple[str, Search]]:
    """Each way to the numbers, with what it found."""
    count, sizes = options.validation, (options.images, options.data_dir)
    if not only_gradients:
        yield HAND, by_hand(candidate, count, lambda method: deploy(stream, method, count, "val", *sizes))
    for name in [way for way in (LEARNED, INITIALISED) if way in options.ways]:
        yield name, by_gradients(stream, candidate, short, name == INITIALISED, options.data_dir)


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as it is printed."""
    percent = [None if part is None else number([100 * value for value in part], 1) for part in (row["accuracy"], row["to_hand"])]
    return {
        "method": row["method"],
        "numbers": row["numbers"],
        "found": row["found"],
        "accuracy in %": percent[0] or "",
        "worst order": f"{100 * min(row['accuracies']):.1f}",
        "more than by hand, order by order": percent[1] or "",
        "search, processor s": f"{row['search_seconds']:,.0f}",
        "search, steps": f"{row['search_steps']:,}",
        "memory (KiB)": f"{row['memory_bytes'] / 1024:,.0f}",
        "gradients": f"{row['gradients']:,}",
    }


def write(rows: list[dict[str, Any]], folder: Path = RECORDS) -> Path:
    """Puts rows on record; those of other methods and streams stay."""
    old = read_record(NAME, folder)
    found = {tuple(row[key] for key in KEY): row for row in [*(old["rows"] if old else []), *rows]}
    whole = list(found.values())
    return write_record(NAME, {"kind": "benchmark", "content": content(whole), "rows": whole}, folder)


def content(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table of each stream and source."""
    parts: list[dict[str, Any]] = []
    for stream, source in dict.fromkeys((row["stream"], row["source"]) for row in rows):
        own = [row for row in rows if (row["stream"], row["source"]) == (stream, source)]
        first, orders = own[0], len(own[0]["accuracies"])
        text = (
            f"{stream.removesuffix('_mnist').capitalize()} MNIST, {first['steps']} steps of 10, {first['images']} images an "
            f"experience, {orders} unseen orders, {first['tests'] or 'all'} test images of each experience; mean ± 95 % interval "
            f"by Student's t. {SHARED[source]}"
        )
        parts += [{"text": text}, {"columns": list(shown(first)), "rows": [list(shown(row).values()) for row in own]}]
        parts += [{"commands": list(dict.fromkeys(row["command"] for row in own))}]
    return [*parts, {"text": STEPS}]


def main(argv: list[str] | None = None) -> int:
    """Prints the table, and puts it on record if wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stream", required=True, choices=STREAMS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS], help="default: all")
    parser.add_argument("--source", choices=SHARED, default="digits", help="what is meta-learned on (default digits)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the files of MNIST, and of Omniglot")
    parser.add_argument("--images", type=int, default=500, help="training images of an experience (default 500)")
    parser.add_argument("--orders", type=int, default=20, help="unseen orders, with the seeds 0, 1, ... (default 20)")
    parser.add_argument("--validation", type=int, default=3, help="validation streams of each point of a grid (default 3)")
    parser.add_argument("--short_images", type=int, default=200, help="images of a short stream's experience (default 200)")
    parser.add_argument("--streams", type=int, default=4, help="short streams of an outer step (default 4)")
    parser.add_argument(
        "--outer_steps", type=int, default=10, help="of meta-learning; an initialisation has twice as many (default 10)"
    )
    parser.add_argument(
        "--keep_hand", action="store_true", help="take the numbers by hand, and what came of them, from the record"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=(LEARNED, INITIALISED), default=[LEARNED, INITIALISED], help="beside by hand (default: both)"
    )
    parser.add_argument("--record", action="store_true", help=f"put the rows on record, in results/{NAME}.json")
    options = parser.parse_args(argv)
    for name in ("images", "orders", "validation", "short_images", "streams", "outer_steps"):
        if (count := getattr(options, name)) < 1:
            parser.error(f"--{name} is {count}; give at least 1")
    one_quiet_thread()
    short, rows = Short(options.source, options.short_images, options.streams, options.outer_steps), []
    try:
        for method in options.methods:
            for row in rows_of(options.stream, method, short, options):
                rows.append(row)
                print({name: value for name, value in shown(row).items() if value}, flush=True)
                if options.record:
                    write(rows)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(f"{options.stream}, {options.orders} unseen orders", [shown(row) for row in rows])
    print(SHARED[options.source])
    return 0


def _command(options: argparse.Namespace, method: str) -> str:
    """What repeats the rows of a method."""
    words = f"uv run python -m benchmarks.meta_continual --stream {options.stream} --methods {method} --source {options.source}"
    sizes = [
        f"--{name} {getattr(options, name)}"
        for name in ("images", "orders", "validation", "short_images", "streams", "outer_steps")
    ]
    return " ".join([words, *sizes, "--data_dir DIR --record"])


if __name__ == "__main__":
    sys.exit(main())
