"""Numbers that were meta-learned on streams of five classes of glyphs, on streams of up to 600 classes of Omniglot.

uv run python -m benchmarks.long_streams [--methods ER DER++] [--classes 50 600] --data_dir DIR

Beside them stand the numbers of a grid on validation streams of 50 classes, and the learned ones with other learning rates.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.continual.metrics import mean_and_interval
from app.continual.references import RAW, references
from app.errors import InputError
from benchmarks.continual_candidates import METHODS
from benchmarks.continual_tuning import FIRST_STREAM
from benchmarks.markdown import number
from benchmarks.measure import describe_machine, one_quiet_thread, print_table
from benchmarks.meta_continual_search import Search, Short, Stream, by_gradients, by_hand, learn
from benchmarks.records import write_record
from callbacks.run_identity import git_commit
from datamodules.class_stream import ClassStream

NAME, TUNED_ON = "long_streams", 50  # classes of a validation stream
KIND, SHORT = Stream(ClassStream, "class", 1, 5, batch=4), Short("glyphs", 8, 4, 30)
LEARNED, FACTORS = "meta-learned on 5 classes of glyphs", (1 / 3, 3.0)  # of other learning rates
TEXT = (
    "Omniglot's evaluation classes one after the other, 15 images each to learn and 5 to test, steps of 4 images, once through, "
    "an MLP of 100 and 100 units from scratch, a memory of {memory} images; {orders} unseen orders, which are other classes too, "
    f"mean ± 95 % interval by Student's t. Meta-learned is what {SHORT.outer_steps} outer steps find on {SHORT.streams} streams "
    f"of 5 classes of glyphs each, {SHORT.images} images of a class, 10 steps long. The grid was tried on {{validation}} streams "
    f"of {TUNED_ON} validation classes of Omniglot. The nearest mean is that of the pixels of all images of a class. Differences "
    "are those to the meta-learned numbers, order by order."
)


def streams(classes: int, split: str, seed: int, data_dir: Path) -> ClassStream:
    """The first of some streams of Omniglot."""
    data = ClassStream("omniglot", data_dir=data_dir, split=split, num_classes=classes, batch_size=KIND.batch, seed=seed)
    data.prepare_data()
    data.setup()
    return data


def nearest_means(classes: int, options: argparse.Namespace) -> dict[str, Any]:
    """The row of the nearest mean of the raw pixels, on the same orders."""
    scores, data = [], streams(classes, "test", 0, options.data_dir)
    masks = torch.ones(len(data.experiences), classes, dtype=torch.bool)
    for order in range(options.orders):
        data.become_replica(order)
        scores.append(references(nn.Linear(1, 1), data, masks, "class")[RAW])
    own = {"classes": classes, "accuracies": scores, "accuracy": mean_and_interval(scores)}
    return {"method": "nearest mean", "numbers": "", "found": "", "to_learned": None, "search_seconds": 0.0, **own}


def searches(method: str, options: argparse.Namespace) -> Iterator[tuple[str, Search]]:
    """Each way to the numbers, with what it found."""
    candidate, count = METHODS[method], options.validation
    if "memory" in candidate.options:
        candidate = candidate._replace(options={**candidate.options, "memory": options.memory})
    learned = by_gradients(KIND, candidate, SHORT, False, options.data_dir)
    yield LEARNED, learned
    for factor in FACTORS:
        numbers = {**learned.numbers, "lr": factor * learned.numbers["lr"]}
        yield f"the same, {factor:.2g} times the learning rate", Search(candidate.made(**numbers), numbers, 0.0, 0)

    def on_validation(made: Any) -> Any:
        torch.manual_seed(FIRST_STREAM)
        return learn(streams(TUNED_ON, "val", FIRST_STREAM, options.data_dir), made, count, "class")

    yield f"the best of a grid on {TUNED_ON} classes of Omniglot", by_hand(candidate, count, on_validation)


def rows_of(method: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each way to the numbers of a method and each length of the stream."""
    base: dict[int, list[float]] = {}
    for name, search in searches(method, options):
        for classes in options.classes:
            torch.manual_seed(0)
            found = learn(streams(classes, "test", 0, options.data_dir), search.method, options.orders, "class")
            own = found.accuracies
            less = [one - other for one, other in zip(own, base.setdefault(classes, own), strict=True)]
            yield {
                "method": method,
                "numbers": name,
                "found": search.words,
                "classes": classes,
                "accuracies": own,
                "accuracy": mean_and_interval(own),
                "to_learned": None if name == LEARNED else mean_and_interval(less),
                "search_seconds": search.seconds,
                "memory_bytes": found.memory_bytes,
                "gradients": found.gradients,
            }


def all_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Those of all methods, after the nearest means."""
    for classes in options.classes:
        yield nearest_means(classes, options)
    for method in options.methods:
        yield from rows_of(method, options)


def record_of(rows: list[dict[str, Any]], options: argparse.Namespace, commit: str | None) -> dict[str, Any]:
    """What goes on record."""
    facts = {"orders": options.orders, "memory": f"{options.memory:,}", "validation": options.validation}
    words = {"methods": options.methods, "classes": options.classes, "memory": [options.memory]}
    words |= {"orders": [options.orders], "validation": [options.validation]}
    given = " ".join(f"--{name} {' '.join(map(str, values))}" for name, values in words.items())
    content = [
        {"text": TEXT.format(**facts)},
        {"columns": list(shown(rows[0])), "rows": [list(shown(row).values()) for row in rows]},
        {"commands": [f"uv run python -m benchmarks.long_streams {given} --data_dir DIR --record"]},
    ]
    return {"kind": "benchmark", "content": content, "rows": rows, "machine": describe_machine(), "commit": commit}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as it is printed."""
    percent = [
        None if part is None else number([100 * value for value in part], 1) for part in (row["accuracy"], row["to_learned"])
    ]
    return {
        "classes": f"{row['classes']:,}",
        "method": row["method"],
        "numbers": row["numbers"],
        "found": row["found"],
        "accuracy in %": percent[0] or "",
        "difference": percent[1] or "",
        "search, processor s": f"{row['search_seconds']:,.0f}" if row["search_seconds"] else "",
    }


def main(argv: list[str] | None = None) -> int:
    """Prints the table, and puts it on record if wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["ER"], help="default: ER")
    parser.add_argument("--classes", nargs="+", type=int, default=[50, 600], help="of the streams (default 50 600)")
    parser.add_argument("--memory", type=int, default=1000, help="images (default 1000)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the files of Omniglot")
    parser.add_argument("--orders", type=int, default=10, help="unseen orders, with the seeds 0, 1, ... (default 10)")
    parser.add_argument("--validation", type=int, default=3, help="validation streams of each point of the grid (default 3)")
    parser.add_argument("--record", action="store_true", help=f"put the rows on record, in results/{NAME}.json")
    options = parser.parse_args(argv)
    least = {"classes": 2, "memory": 1, "orders": 1, "validation": 1}
    for name, count in least.items():
        if (given := min(options.classes) if name == "classes" else getattr(options, name)) < count:
            parser.error(f"--{name} is {given}; give at least {count}")
    one_quiet_thread()
    commit, rows = git_commit(), []
    try:
        for row in all_rows(options):
            rows.append(row)
            print({name: value for name, value in shown(row).items() if value}, flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows.sort(key=lambda row: row["classes"])
    print_table("streams of Omniglot", [shown(row) for row in rows])
    if options.record:
        write_record(NAME, record_of(rows, options, commit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
