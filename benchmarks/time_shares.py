"""Where the time of an outer step goes."""

import time
from collections.abc import Callable
from typing import Any

from torch.autograd.profiler import profile

from benchmarks.measure import synchronize

# The first kind one of whose words is in an operation's name; what is in none is other.
KINDS = {
    "convolutions": ("conv", "mm"),
    "norms": ("norm",),
    "pooling": ("pool",),
    "copies": ("copy", "fill", "zero", "cat"),
}


def time_shares(step: Callable[[], None], device: str, flops: float, ceiling: float) -> dict[str, Any]:
    """The milliseconds of each kind of operation in one step, and how fast its convolutions and matrix products are.

    Args:
        step: takes one outer step.
        device: cpu or cuda; there, what counts is the time of its kernels.
        flops: of the convolutions and matrix products in a step.
        ceiling: FLOP per second of a large matrix product.
    """
    step()
    on_gpu = device == "cuda"
    synchronize(device)
    with profile(use_device="cuda" if on_gpu else None, use_kineto=on_gpu) as profiler:
        start = time.perf_counter()
        step()
        synchronize(device)
        wall = 1e3 * (time.perf_counter() - start)
    spent = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other")
            spent[kind] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3
    speed = flops / (spent["convolutions"] / 1e3)
    return {
        **{f"{kind} ms": milliseconds for kind, milliseconds in spent.items()},
        "idle ms" if on_gpu else "Python, autograd ms": max(0.0, wall - sum(spent.values())),
        "convolutions' GFLOP/s": speed / 1e9,
        "of a product's": f"{speed / ceiling:.0%}",
    }
