"""Episodes per second from the Omniglot archives, against learn2learn's own pipeline.

uv run python -m benchmarks.data --data_dir DIR [--device cuda]

Ours are batches of 32 tasks on the device, as the training step gets them. learn2learn's are single tasks of
`tasksets.train.sample()`, the way its maml_omniglot example takes them, on the CPU. Both draw from the same pictures, 28x28,
with the training classes turned by 0, 90, 180 or 270 degrees.
"""

import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from app.command_line.allocator import keep_freed_memory
from app.episode import Episode
from app.errors import InputError
from benchmarks.learn2learn_omniglot import tasksets, unpacked
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, write_json
from datamodules.omniglot import Omniglot

META_BATCH_SIZE, WAYS = 32, 5
SHAPES = ((1, 1), (1, 15))  # shots, queries


def batches(data: Omniglot, device: torch.device) -> Iterator[Episode]:
    """Training batches on the device, as the Trainer hands them to the training step."""
    for draws in data.train_dataloader():
        yield data.on_after_batch_transfer(data.transfer_batch_to_device(draws, device, 0), 0)


def take(source: Iterator[Any], count: int) -> None:
    """Draws so many from an endless source."""
    for _ in islice(source, count):
        pass


def measure(data_dir: Path, folder: Path, device: str = "cpu", repeats: int = 5, num_batches: int = 30) -> dict[str, Any]:
    """A row for each size of task, and what the preparation costs, once.

    Args:
        data_dir: folder of the archives.
        folder: where the pictures are unpacked for learn2learn.
        device: where our episodes end.
        repeats: of each timing.
        num_batches: of ours, in one timed call.
    """
    root = unpacked(data_dir, folder)
    with TemporaryDirectory() as empty:
        start = time.perf_counter()
        Omniglot(str(data_dir), cache_dir=empty).prepare_data()
        decoding = time.perf_counter() - start
    rows = []
    for shots, queries in SHAPES:
        data = Omniglot(str(data_dir), ways=WAYS, shots=shots, queries=queries, meta_batch_size=META_BATCH_SIZE)
        start = time.perf_counter()
        data.prepare_data()
        data.setup()
        opening = time.perf_counter() - start
        ours, theirs = batches(data, torch.device(device)), tasksets(root, WAYS, shots + queries).train
        functions = {"ours": lambda ours=ours: take(ours, num_batches), "theirs": lambda theirs=theirs: theirs.sample()}
        times = interleaved(functions, repeats, device)
        rates = {"ours": num_batches * META_BATCH_SIZE / times["ours"].median, "theirs": 1 / times["theirs"].median}
        rows.append(
            {
                "task": f"{WAYS}-way, {shots} + {queries} shots",
                "ours (tasks/s)": rates["ours"],
                "learn2learn (tasks/s)": rates["theirs"],
                "ratio": rates["ours"] / rates["theirs"],
                "ours (ms per 32 tasks)": 1e3 * times["ours"].median / num_batches,
                "learn2learn (ms per task)": times["theirs"],
                "opening the cache (s)": opening,
            }
        )
    return {"rows": rows, "decoding_once_seconds": decoding}


def main() -> int:
    """Measures and prints."""
    parser = arguments(__doc__, "data")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of omniglot-py/ with both archives")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing (default 5)")
    options = parser.parse_args()
    keep_freed_memory()  # as train.py does
    machine = describe_machine(options.device)
    try:
        result = measure(options.data_dir, options.out.parent / "learn2learn", options.device, options.repeats)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(f"Episodes of Omniglot on {machine['device']}", result["rows"])
    print(f"decoding all pictures, once: {result['decoding_once_seconds']:.1f} s")
    write_json(options.out, machine=machine, **result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
