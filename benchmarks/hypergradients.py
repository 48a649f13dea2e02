"""What second-order training costs with many inner steps: seconds and memory of an outer step, by the way to its gradient.

    uv run python -m benchmarks.hypergradients [--device cuda]

MAML on 5-way 1-shot tasks of 28x28 with 5 queries, Conv4-64. Each way takes its turn; its memory is that of a process of its own.
Beside the time stands that of the processors, which a busy machine changes less.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from app.command_line.allocator import keep_freed_memory
from benchmarks.maml_shapes import Shape, our_step, ours, random_tasks
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, write_json
from benchmarks.own_processes import peak_memory
from callbacks.exact_kernels import keep_exact

WAYS_TO_IT: dict[str, dict[str, Any]] = {
    "unrolled": {},
    "checkpoint_inner_steps": {"checkpoint_inner_steps": True},
    "mixed": {"hypergradient": "mixed"},
}


def processor_time(step: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """The same step, which notes the seconds of all threads."""

    def timed() -> None:
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)

    return timed


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "hypergradients")
    parser.add_argument("--steps", default="5,20,100", help="inner steps (default 5,20,100)")
    parser.add_argument("--tasks", type=int, default=4, help="tasks of an outer step, all at once (default 4)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each (default 5)")
    options = parser.parse_args(argv)
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is here; leave it out")
    keep_freed_memory()
    keep_exact()
    machine, rows = describe_machine(device), []
    for steps in map(int, options.steps.split(",")):
        shape = Shape((1, 28, 28), 5, steps, options.tasks, 0.1, {"width": 64})
        ways = {name: wanted | {"tasks_per_chunk": options.tasks} for name, wanted in WAYS_TO_IT.items()}
        memory = {name: peak_memory(shape, None, device, **wanted) for name, wanted in ways.items()}
        batch = random_tasks(shape, device)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        contenders = {
            name: processor_time(our_step(ours(shape, False, **wanted).to(device), batch), seconds[name])
            for name, wanted in ways.items()
        }
        times = interleaved(contenders, options.repeats, device)
        processor = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first is not timed
        for name, time_ in times.items():
            row = {"inner steps": steps, "hypergradient": name, "ms per outer step": time_}
            row |= {"times": time_.median / times["unrolled"].median, "processor times": processor[name] / processor["unrolled"]}
            rows.append(row | {"peak MiB": memory[name], "share": memory[name] / memory["unrolled"]})
    print_table(f"MAML's outer step on {options.tasks} tasks, second order", rows)
    print(machine)
    write_json(options.out, machine=machine, rows=rows)


if __name__ == "__main__":
    main()
