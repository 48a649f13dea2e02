"""Outer steps and tasks per second of MAML, ours against other libraries on the same weights and tasks.

    uv run --group bench python -m benchmarks.throughput [--device cuda] [--shapes a,b,c]

Contenders take turns in one process, in which glibc keeps freed memory (app/allocator.py): that helps the rivals too. The
meta-gradient of each is compared with ours in float64 before it is timed. A library that is not installed is left out.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from app.algorithms.anp import ANP
from app.algorithms.maml import MAML
from app.algorithms.protonet import ProtoNet
from app.algorithms.reptile import Reptile
from app.allocator import keep_freed_memory
from app.backbones.conv4 import Conv4
from app.episode import Episode
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, write_json
from benchmarks.rivals import RIVALS, PlainConv4


class Shape(NamedTuple):
    """A setting of MAML on images; the meta-batch is what an outer step takes."""

    image: tuple[int, int, int]
    queries: int
    steps: int
    tasks: int
    lr: float
    network: dict[str, Any]


SHAPES = {
    "a": Shape((1, 28, 28), 1, 1, 32, 0.4, {"width": 64}),
    "b": Shape((1, 28, 28), 15, 5, 16, 0.1, {"width": 64}),
    "c": Shape((3, 84, 84), 15, 5, 4, 0.01, {"width": 32, "downsample": "max_pool"}),
}
WAYS = 5
Row = dict[str, Any]


def random_tasks(shape: Shape, device: str, shots: int = 1, ways: int = WAYS) -> Episode:
    """Tasks of noise: what is in the images does not change the time."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(ways)
    sizes = [shots, shape.queries]
    images = [torch.rand(shape.tasks, ways * size, *shape.image, generator=generator) for size in sizes]
    targets = [labels.repeat_interleave(size).expand(shape.tasks, -1).contiguous() for size in sizes]
    return Episode(*(tensor.to(device) for pair in zip(images, targets, strict=True) for tensor in pair))


def ours(shape: Shape, first_order: bool, ways: int = WAYS, **options: Any) -> MAML:
    """Our MAML for a shape."""
    torch.manual_seed(0)
    backbone = partial(Conv4, **shape.network)
    return MAML(
        input_shape=shape.image,
        output_size=ways,
        backbone=backbone,
        inner_steps=shape.steps,
        inner_lr=shape.lr,
        first_order=first_order,
        **options,
    )


def plain(algorithm: MAML, shape: Shape) -> nn.Module:
    """The same network, with the same weights, for the rivals."""
    max_pool = shape.network.get("downsample") == "max_pool"
    net = PlainConv4(shape.image[0], WAYS, shape.network["width"], max_pool, algorithm.net.num_features)
    for theirs, weight in zip(net.parameters(), algorithm.net.parameters(), strict=True):
        theirs.data.copy_(weight)
    return net


def our_step(algorithm: nn.Module, batch: Episode, precision: str = "32") -> Callable[[], None]:
    """One outer step of one of our methods."""
    params, optimizer = dict(algorithm.named_parameters()), torch.optim.Adam(algorithm.parameters())
    device = batch.support_x.device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            gradient, _ = algorithm.outer_gradient(params, batch)
        for name, value in params.items():
            value.grad = gradient[name]
        optimizer.step()

    return step


def their_step(rival: str, net: nn.Module, batch: Episode, shape: Shape, first_order: bool, precision: str) -> Callable[[], None]:
    """One outer step of another library."""
    optimizer, device = torch.optim.Adam(net.parameters()), batch.support_x.device.type

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            RIVALS[rival](net, batch, shape.steps, shape.lr, first_order)
        optimizer.step()

    return step


def gradient_error(rival: str, shape: Shape, first_order: bool, device: str) -> float:
    """Relative difference of a rival's meta-gradient from ours, in float64, of one inner step on two small tasks."""
    height = shape.image[1] // 2
    small = shape._replace(tasks=2, queries=2, steps=min(shape.steps, 2), image=(shape.image[0], height, height))
    algorithm = ours(small, first_order).double().to(device)
    batch = Episode(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in random_tasks(small, device)))
    net = plain(algorithm, small).double().to(device)
    RIVALS[rival](net, batch, small.steps, small.lr, first_order)
    gradient, _ = algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)
    expected = torch.cat([value.flatten() for value in gradient.values()])
    return float((torch.cat([weight.grad.flatten() for weight in net.parameters()]) - expected).norm() / expected.norm())


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


def peak_memory(shape: Shape, rival: str | None, device: str, **options: Any) -> float:
    """MiB that two second-order outer steps add to a process of their own, or to the GPU.

    Args:
        shape: of the setting.
        rival: a name of `RIVALS`, null for ours.
        device: cpu or cuda.
        options: of our method.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (shape, rival, device, options))


def _peak_memory(shape: Shape, rival: str | None, device: str, options: dict[str, Any]) -> float:
    before, small = 0.0, shape._replace(tasks=1, queries=1, steps=1, image=(shape.image[0], 16, 16))
    for counted in (small, shape):  # what is loaded at the first step is not counted
        if counted is shape and device == "cpu":
            before = _high_water()
        algorithm, batch = ours(counted, False, **options).to(device), random_tasks(counted, device)
        if rival is None:
            step = our_step(algorithm, batch)
        else:
            step = their_step(rival, plain(algorithm, counted).to(device), batch, counted, False, "32")
        step()
        step()
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _high_water() - before


def _high_water() -> float:
    """Most MiB that this process has held; getrusage would begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def as_it_comes(shape: Shape, repeats: int) -> float:
    """Median seconds of learn2learn's outer step in a process whose memory is left to glibc, as its users run it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_as_it_comes, (shape, repeats))


def _as_it_comes(shape: Shape, repeats: int) -> float:
    net, batch = plain(ours(shape, False), shape), random_tasks(shape, "cpu")
    step = their_step("learn2learn", net, batch, shape, False, "32")
    return interleaved({"step": step}, repeats)["step"].median


def in_processes(num: int, shape: Shape, repeats: int) -> float:
    """Median seconds of an outer step of several processes on the CPU, which share the tasks and the threads."""
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), _free_port()
    processes = [context.Process(target=_share, args=(rank, num, shape, port, repeats, results)) for rank in range(num)]
    for process in processes:
        process.start()
    seconds = results.get(timeout=300)
    for process in processes:
        process.join()
    return seconds


def _share(rank: int, num: int, shape: Shape, port: int, repeats: int, results: Any) -> None:
    keep_freed_memory()
    torch.set_num_threads(max(1, torch.get_num_threads() // num))
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num)
    algorithm = ours(shape, False)
    share = Episode(*(tensor.chunk(num)[rank] for tensor in random_tasks(shape, "cpu")))
    params, optimizer = dict(algorithm.named_parameters()), torch.optim.Adam(algorithm.parameters())

    def step() -> None:
        gradient, _ = algorithm.outer_gradient(params, share)
        flat = torch.cat([value.flatten() for value in gradient.values()]) / num
        dist.all_reduce(flat)
        for value, mean in zip(params.values(), flat.split([value.numel() for value in params.values()]), strict=True):
            value.grad = mean.view_as(value)
        optimizer.step()

    median = interleaved({"step": step}, repeats)["step"].median
    if rank == 0:
        results.put(median)
    dist.destroy_process_group()


def _free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


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
        net = plain(ours(shape, first_order), shape).to(device)
        steps[rival] = their_step(rival, net, batch, shape, first_order, precision)
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
            }
        )
    return rows


def other_methods(device: str, repeats: int) -> list[Row]:
    """Outer steps of methods that have no rival here."""
    a = Shape((1, 28, 28), 1, 1, 32, 0.4, {"width": 64})
    image, tasks = a.image, 32
    torch.manual_seed(0)
    conv4, pooled = partial(Conv4, width=64), partial(Conv4, width=64, downsample="max_pool")
    protonet = ProtoNet(input_shape=image, output_size=5, train_output_size=60, backbone=pooled).to(device)
    protonet._mean_over_processes = lambda tensor: tensor
    images, labels = torch.rand(2, 1, 300, *image), torch.arange(60).repeat_interleave(5)[None]
    ways60 = Episode(images[0], labels, images[1], labels)
    anp = ANP(input_shape=(1,), output_size=1, task_type="regression").to(device)
    curves = Episode(*(torch.randn(tasks, rows, 1) for rows in (50, 50, 100, 100)))
    reptile = Reptile(input_shape=image, output_size=5, backbone=conv4, inner_steps=5, inner_batch_size=10).to(device)
    reptile._keep_moments = lambda moments: None
    cases = {
        "ProtoNet, 60-way 5-shot, 5 queries": (protonet, ways60, 1),
        "ANP, 50 context points of 100": (anp, curves, tasks),
        "Reptile, 5-way 10-shot, 5 steps": (reptile, random_tasks(a._replace(tasks=5), device, shots=10), 5),
    }
    steps = {}
    for name, (algorithm, batch, _) in cases.items():
        steps[name] = our_step(algorithm, Episode(*(tensor.to(device) for tensor in batch)))
    return [
        {"method": name, "ms per step": str(timing), "steps/s": 1 / timing.median, "tasks/s": cases[name][2] / timing.median}
        for name, timing in interleaved(steps, repeats, device).items()
    ]


def main(argv: list[str] | None = None) -> None:
    parser: argparse.ArgumentParser = arguments(__doc__, "throughput")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of a, b and c (default all)")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each (default 7)")
    options = parser.parse_args(argv)
    names, device, repeats = options.shapes.split(","), options.device, options.repeats
    if unknown := [name for name in names if name not in SHAPES]:
        parser.error(f"--shapes {','.join(unknown)}: choose of {', '.join(SHAPES)}")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is here; leave it out")
    keep_freed_memory()
    started, machine, rows, memory = time.perf_counter(), describe_machine(device), [], []
    for name in names:
        for first_order, precision, contenders in (
            (False, "32", list(RIVALS)),
            (True, "32", ["learn2learn"]),
            (False, "bf16", ["learn2learn"]),
        ):
            found = compare(name, first_order, precision, device, repeats, contenders)
            if not first_order and precision == "32" and device == "cpu":
                for position, by, seconds in (
                    (1, "ours, two processes", in_processes(2, SHAPES[name], repeats)),
                    (3, "learn2learn, memory left to glibc", as_it_comes(SHAPES[name], repeats)),
                ):
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
    others = other_methods(device, repeats)
    print_table("Other methods", others)
    print(f"{time.perf_counter() - started:.0f} s on {machine}")
    write_json(options.out, machine=machine, rows=rows, memory=memory, others=others)


if __name__ == "__main__":
    main()
