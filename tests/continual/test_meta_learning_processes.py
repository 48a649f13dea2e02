"""The streams of an outer step, shared by two processes."""

import pytest
import torch
from helpers.command_line import fork
from helpers.meta_streams import LEARN, meta_learned, work
from helpers.processes import free_port


@pytest.mark.slow
def test_two_processes_share_the_streams_of_a_step(tmp_path):
    port = free_port()
    processes = [fork(work, rank, port, tmp_path) for rank in range(2)]
    for process in processes:
        process.join(240)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0], "".join(log.read_text() for log in tmp_path.glob("*.log"))
    for mode in LEARN:
        one, start = meta_learned(mode), meta_learned(mode, steps=1)
        two, other = (torch.load(tmp_path / f"{mode}.{rank}.pt") for rank in range(2))
        for name, expected in one.items():
            assert torch.equal(two[name], other[name]), name
            assert (two[name] - expected).norm() <= 1e-10 * expected.norm(), name
            assert not torch.equal(start[name], expected), name
