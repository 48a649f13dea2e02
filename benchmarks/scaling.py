"""How the cost of MAML's outer step grows: meta-batch, inner steps, ways, width, image size, processes and GPUs.

    uv run python -m benchmarks.scaling [--device cuda]

One thing grows at a time, from 5-way 1-shot, 5 queries, 1 inner step, 16 tasks of 28x28, Conv4-64. The exponent is the slope of
log time against log size over the upper half of the sizes: 1 is linear.
"""

import math
import time
from typing import Any

import matplotlib
import torch

from app.command_line.allocator import keep_freed_memory
from benchmarks.maml_shapes import Shape, our_step, ours, random_tasks
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, write_json
from benchmarks.own_processes import in_processes, peak_memory
from callbacks.exact_kernels import keep_exact

BASE = Shape((1, 28, 28), 5, 1, 16, 0.1, {"width": 64})
GROWING: dict[str, tuple[int, ...]] = {
    "meta-batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "inner steps": (1, 2, 5, 10, 20),
    "ways": (2, 5, 10, 20),
    "width": (16, 32, 64, 128),
    "image side": (14, 28, 56, 84),
}


def grown(what: str, size: int) -> tuple[Shape, int]:
    """The setting with one thing at a size, and the ways."""
    change: dict[str, Any] = {
        "meta-batch": {"tasks": size},
        "inner steps": {"steps": size},
        "ways": {},
        "width": {"network": {"width": size}},
        "image side": {"image": (1, size, size)},
    }[what]
    return BASE._replace(**change), size if what == "ways" else 5


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log time against log size over the upper half of the sizes."""
    half = min(len(sizes) // 2, len(sizes) - 2)
    x, y = ([math.log(value) for value in values[half:]] for values in (sizes, seconds))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)


def draw(curves: dict[str, tuple[list[int], list[float]]], path: Any) -> None:
    """A panel for each curve, seconds of an outer step against size, both logarithmic, beside a linear growth."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(3 * len(curves), 3), layout="constrained")
    for axis, (name, (sizes, seconds)) in zip(axes, curves.items(), strict=True):
        axis.loglog(sizes, seconds, "o-", label="measured")
        axis.loglog(sizes, [seconds[-1] * size / sizes[-1] for size in sizes], ":", color="grey", label="linear")
        axis.set(xlabel=name, xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
    axes[0].set_ylabel("seconds of an outer step")
    axes[0].legend(frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "scaling")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each (default 5)")
    parser.add_argument("--largest", type=int, default=256, help="sizes above are left out (default 256)")
    options = parser.parse_args(argv)
    device, repeats = options.device, options.repeats
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is here; leave it out")
    keep_freed_memory()
    keep_exact()
    started, machine, rows, curves = time.perf_counter(), describe_machine(device), [], {}
    for what, all_sizes in GROWING.items():
        sizes, seconds = [size for size in all_sizes if size <= options.largest], []
        for size in sizes:
            shape, ways = grown(what, size)
            algorithm = ours(shape, False, ways=ways).to(device)
            step = our_step(algorithm, random_tasks(shape, device, ways=ways))
            seconds.append(interleaved({"step": step}, repeats, device)["step"].median)
            per_task = 1e3 * seconds[-1] / shape.tasks
            rows.append({"what": what, "size": size, "ms per step": 1e3 * seconds[-1], "ms per task": per_task, "exponent": None})
        rows[-1]["exponent"] = exponent(sizes, seconds)
        curves[what] = sizes, seconds
    if device == "cpu":
        for num in (1, 2):
            seconds_of = in_processes(num, BASE, repeats)
            row = {
                "what": "processes",
                "size": num,
                "ms per step": 1e3 * seconds_of,
                "ms per task": 1e3 * seconds_of / BASE.tasks,
            }
            rows.append(row | {"exponent": None})
    deep = BASE._replace(steps=20, tasks=min(32, options.largest))
    memory = [
        {"by": f"ours, {chunk} tasks in a chunk", "peak MiB": peak_memory(deep, None, device, tasks_per_chunk=chunk)}
        for chunk in (deep.tasks, 8, 1)
    ]
    memory.append({"by": "learn2learn, task after task", "peak MiB": peak_memory(deep, "learn2learn", device)})
    print_table("Growth of an outer step", rows)
    print_table(f"Memory of {deep.tasks} tasks, {deep.steps} inner steps, second order", memory)
    print(f"{time.perf_counter() - started:.0f} s on {machine}")
    write_json(options.out, machine=machine, rows=rows, memory=memory)
    draw(curves, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
