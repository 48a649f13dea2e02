"""Outer steps and tasks per second of MAML, ours against other libraries on the same weights and tasks.

    uv run --group bench python -m benchmarks.throughput [--device cuda] [--shapes a,b,c] [--compile] [--record]

Contenders take turns in one process, in which glibc keeps freed memory (app/command_line/allocator.py): that helps the rivals
too. The meta-gradient of each is compared with ours in float64 before it is timed. A library that is not installed is left out.
With --compile our compiled step takes its turn as well; it compiles for minutes. On a GPU float32 is never TF32, for any of them.
"""

import argparse
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from app.command_line.allocator import keep_freed_memory
from app.episode import Episode
from app.torch_internals import fresh_compiler_cache
from benchmarks.maml_shapes import SHAPES, Shape, our_step, ours, plain, random_tasks, their_step
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, seconds_of, write_json
from benchmarks.other_methods import other_methods
from benchmarks.own_processes import as_it_comes, in_processes, peak_memory
from benchmarks.rivals import RIVALS
from benchmarks.speed_days import MOST_ELSEWHERE, add_run, cores_elsewhere
from benchmarks.time_shares import time_shares
from callbacks.exact_kernels import keep_exact

COMPILED = "ours, compiled"


def gradient_error(rival: str, shape: Shape, first_order: bool, device: str) -> float:
    """Relative difference of a rival's meta-gradient from ours, in float64, on two small tasks."""
    height = shape.image[1] // 2
    small = shape._replace(tasks=2, queries=2, steps=min(shape.steps, 2), image=(shape.image[0], height, height))
    algorithm = ours(small, first_order).double().to(device)
    batch = Episode(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in random_tasks(small, device)))
    gradient, _ = algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)
    expected = torch.cat([value.flatten() for value in gradient.values()])
    if rival == COMPILED:
        compiled = ours(small, first_order, compile=True).double().to(device)
        found = list(compiled.outer_gradient(dict(compiled.named_parameters()), batch)[0].values())
    else:
        net = plain(algorithm, small).double().to(device)
        RIVALS[rival](net, batch, small.steps, small.lr, first_order)
        found = [weight.grad for weight in net.parameters()]
    return float((torch.cat([value.flatten() for value in found]) - expected).norm() / expected.norm())


def flops_of_a_task(shape: Shape, first_order: bool) -> float:
    """Floating-point operations of the convolutions and matrix products in a task's meta-gradient, by a plain loop."""
    one = shape._replace(tasks=1)
    with FlopCounterMode(display=False) as counter:
        RIVALS["loop"](plain(ours(one, first_order), one), random_tasks(one, "cpu"), one.steps, one.lr, first_order)
    return float(counter.get_total_flops())


def ceiling(device: str, precision: str) -> float:
    """FLOP per second of a large matrix product."""
    size = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / interleaved({"product": lambda: matrix @ matrix}, device=device)["product"].low


def compare(
    name: str, first_order: bool, precision: str, device: str, repeats: int, contenders: list[str]
) -> list[dict[str, Any]]:
    """The rows of one setting: ours first, then every rival that runs and gives the same gradient."""
    shape = SHAPES[name]
    batch = random_tasks(shape, device)
    steps = {"ours": our_step(ours(shape, first_order).to(device), batch, precision)}
    errors: dict[str, float | None] = {"ours": None}
    for rival in contenders:
        try:
            errors[rival] = gradient_error(rival, shape, first_order, device)
        except (ImportError, NotImplementedError):
            continue
        if errors[rival] > 1e-8:
            raise SystemExit(
                f"the meta-gradient of {rival} differs from ours by {errors[rival]:.1e} in shape {name}; it is not timed"
            )
        if rival == COMPILED:
            steps[rival] = our_step(ours(shape, first_order, compile=True).to(device), batch, precision)
        else:
            net = plain(ours(shape, first_order), shape).to(device)
            steps[rival] = their_step(rival, net, batch, shape, first_order, precision)
    with fresh_compiler_cache():  # of what was compiled before
        first = {name: seconds_of(step, device) for name, step in steps.items()}
    timings = interleaved(steps, repeats, device)
    flops, top = flops_of_a_task(shape, first_order) * shape.tasks, ceiling(device, precision)
    rows = []
    for contender, timing in timings.items():
        rows.append(
            {
                "shape": f"{name} {'first' if first_order else 'second'} order, {precision}",
                "by": contender,
                "ms per step": str(timing),
                "steps/s": 1 / timing.median,
                "tasks/s": shape.tasks / timing.median,
                "GFLOP/s": flops / timing.median / 1e9,
                "of a product's": f"{flops / timing.median / top:.0%}",
                "x learn2learn": None,
                "gradient differs by": None if errors[contender] is None else f"{errors[contender]:.0e}",
                "first step s": first[contender],
            }
        )
    return rows


def where_time_goes(name: str, device: str) -> dict[str, Any]:
    """The row of a shape's second-order step in float32."""
    shape = SHAPES[name]
    flops = flops_of_a_task(shape, first_order=False) * shape.tasks
    step = our_step(ours(shape, first_order=False).to(device), random_tasks(shape, device))
    return {"shape": name, **time_shares(step, device, flops, ceiling(device, "32"))}


def main(argv: list[str] | None = None) -> None:
    parser: argparse.ArgumentParser = arguments(__doc__, "throughput")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of a, b and c (default all)")
    parser.add_argument("--compile", action="store_true", help="our compiled step too, in second order and float32")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each (default 7)")
    parser.add_argument("--record", action="store_true", help="adds the times to results/, which RESULTS.md is made of")
    options = parser.parse_args(argv)
    names, device, repeats = options.shapes.split(","), options.device, options.repeats
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"--shapes {','.join(unknown)}: choose of {', '.join(SHAPES)}")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is here; leave it out")
    machine = describe_machine(device)
    if options.record and (elsewhere := cores_elsewhere() or 0.0) > MOST_ELSEWHERE:
        parser.error(f"--record: other programs keep {elsewhere:.1f} cores busy, at most {MOST_ELSEWHERE}; wait for them")
    keep_freed_memory()
    keep_exact()
    started, rows, memory = time.perf_counter(), [], []
    for name in names:
        for first_order, precision, contenders in (
            (False, "32", [COMPILED] * options.compile + list(RIVALS)),
            (True, "32", ["learn2learn"]),
            (False, "bf16", ["learn2learn"]),
        ):
            found = compare(name, first_order, precision, device, repeats, contenders)
            if not first_order and precision == "32" and device == "cpu":
                for after, by, seconds in (
                    ("ours", "ours, two processes", in_processes(2, SHAPES[name], repeats)),
                    ("learn2learn", "learn2learn, memory left to glibc", as_it_comes(SHAPES[name], repeats)),
                ):
                    position = next((number for number, row in enumerate(found, 1) if row["by"] == after), len(found))
                    row = {"shape": found[0]["shape"], "by": by, "ms per step": f"{1e3 * seconds:,.1f}", "steps/s": 1 / seconds}
                    found.insert(position, dict.fromkeys(found[0]) | row | {"tasks/s": SHAPES[name].tasks / seconds})
            reference = next((row["tasks/s"] for row in found if row["by"] == "learn2learn"), None)
            for row in found:
                row["x learn2learn"] = reference and row["tasks/s"] / reference
            rows += found
        for rival in (None, "learn2learn"):
            memory.append({"shape": name, "by": rival or "ours", "peak MiB": peak_memory(SHAPES[name], rival, device)})
    print_table("Outer steps of MAML, 5-way 1-shot", rows)
    print_table("Memory of an outer step, second order", memory)
    shares = [where_time_goes(name, device) for name in names]
    print_table("Where our time goes, second order, float32", shares)
    others = other_methods(device, repeats, options.compile)
    print_table("Other methods", others)
    print(f"{time.perf_counter() - started:.0f} s on {machine}")
    write_json(options.out, machine=machine, rows=rows, memory=memory, time_shares=shares, others=others)
    if options.record:
        print(add_run(machine, rows))


if __name__ == "__main__":
    main()
