"""What is measured in processes of their own: memory, several processes, and a rival as its users run it."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from app.command_line.allocator import keep_freed_memory
from app.episode import Episode
from benchmarks.maml_shapes import Shape, our_step, ours, plain, random_tasks, their_step
from benchmarks.measure import interleaved
from benchmarks.with_parent import end_with_parent


def peak_memory(shape: Shape, rival: str | None, device: str, **options: Any) -> float:
    """MiB that two second-order outer steps add to a process of their own, or to the GPU.

    Args:
        shape: of the setting.
        rival: a name of `RIVALS`, null for ours.
        device: cpu or cuda.
        options: of our method.
    """
    with multiprocessing.get_context("spawn").Pool(1, end_with_parent) as pool:
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
    with multiprocessing.get_context("spawn").Pool(1, end_with_parent) as pool:
        return pool.apply(_as_it_comes, (shape, repeats))


def _as_it_comes(shape: Shape, repeats: int) -> float:
    net, batch = plain(ours(shape, False), shape), random_tasks(shape, "cpu")
    step = their_step("learn2learn", net, batch, shape, False, "32")
    return interleaved({"step": step}, repeats)["step"].median


def in_processes(num: int, shape: Shape, repeats: int) -> float:
    """Median seconds of an outer step of several processes on the CPU, which share the tasks and the threads."""
    return measured_by_all(num, _share, shape, repeats)


def measured_by_all(num: int, measure: Callable[..., None], shape: Shape, repeats: int) -> Any:
    """What the first of several processes puts into its queue.

    Args:
        num: of the processes.
        measure: what each calls, with its rank, their number, the shape, a free port, the repeats and the queue.
        shape: of the setting.
        repeats: timed steps.
    """
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), _free_port()
    given = [(rank, num, shape, port, repeats, results) for rank in range(num)]
    processes = [context.Process(target=_of_parent, args=(measure, *one)) for one in given]
    for process in processes:
        process.start()
    found = results.get(timeout=600)
    for process in processes:
        process.join()
    return found


def _of_parent(measure: Callable[..., None], *args: Any) -> None:
    end_with_parent()
    measure(*args)


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
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
