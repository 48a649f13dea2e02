"""What the same bits on any number of processes cost: an outer step in blocks of fixed size beside a free one, on the CPU.

Blocks have sizes that go on 1, 2 or 4 processes.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from app.command_line.allocator import keep_freed_memory
from app.episode import Episode
from app.learners.outcome import mean_of_blocks
from benchmarks.maml_shapes import SHAPES, Shape, ours, random_tasks
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, write_json
from benchmarks.own_processes import measured_by_all

FREE = 0  # the size of blocks where there are none


def sizes_of(shape: Shape) -> list[int]:
    """Sizes of blocks that go on 1, 2 or 4 processes."""
    return [size for size in (1, 2, 4, 8) if shape.tasks // size >= 4 and shape.tasks % size == 0]


def _measure(rank: int, num: int, shape: Shape, port: int, repeats: int, results: Any) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num)
    algorithm = ours(shape, False)
    share = Episode(*(tensor.chunk(num)[rank] for tensor in random_tasks(shape, "cpu")))
    params, optimizer = dict(algorithm.named_parameters()), torch.optim.Adam(algorithm.parameters())

    def step(size: int) -> None:
        parts = zip(*(tensor.split(size or len(tensor)) for tensor in share), strict=True)
        blocks = [algorithm.outcome(params, Episode(*tensors), with_observations=False) for tensors in parts]
        if size:
            gradient = mean_of_blocks(blocks).gradient
        else:
            flat = torch.cat([value.flatten() for value in blocks[0].gradient.values()]) / num
            dist.all_reduce(flat)
            of_each = flat.split([value.numel() for value in params.values()])
            gradient = {name: mean.view_as(params[name]) for name, mean in zip(params, of_each, strict=True)}
        for name, value in params.items():
            value.grad = gradient[name]
        optimizer.step()

    measured = interleaved({str(size): partial(step, size) for size in (FREE, *sizes_of(shape))}, repeats)
    if rank == 0:
        results.put({int(size): timing.median for size, timing in measured.items()})
    dist.destroy_process_group()


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "blocks")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps of each (default 20)")
    options = parser.parse_args(argv)
    if options.device != "cpu":
        parser.error("--device cuda: several processes are timed on the CPU; leave it out")
    rows = []
    for name, shape in SHAPES.items():
        for num in (1, 2):
            found: dict[int, float] = measured_by_all(num, _measure, shape, options.repeats)
            for size, median in found.items():
                more = 100 * (median / found[FREE] - 1) if size else None
                rows.append(
                    {"setting": name, "processes": num, "block": size or None, "ms per step": 1e3 * median, "% more": more}
                )
    print_table("MAML's outer step in blocks, one thread a process; without a number, tasks and sums as they come", rows)
    write_json(options.out, machine=describe_machine(), rows=rows)


if __name__ == "__main__":
    main()
