"""Who can end a job: its own processes, and nobody else who reaches the port."""

import socket
import time
from types import SimpleNamespace

import pytest
import torch

from callbacks.rank_watch import RankWatch


class Watched(RankWatch):
    """Says why it would end the process, instead of ending it."""

    reason = ""

    def _end(self, reason: str, speaks: bool | None = None) -> None:
        self.reason = reason
        self._closing.set()


@pytest.fixture
def pair(monkeypatch):
    """The watches of two ranks, each of which knows what the other one told, as in a process group."""
    told, watches = [None, None], []
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")

    def start(rank: int, num_nodes: int = 1) -> Watched:
        def gather(places: list, own: tuple) -> None:
            told[rank] = own
            places[:] = [place or own for place in told]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        watches.append(Watched())
        trainer = SimpleNamespace(world_size=2, num_nodes=num_nodes, global_rank=rank, local_rank=rank)
        watches[-1].setup(trainer, None, "fit")
        return watches[-1]

    yield start
    for watch in watches:
        watch.close()


def soon(condition) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
@pytest.mark.parametrize("num_nodes", [1, 2])
def test_a_stranger_neither_ends_a_job_nor_keeps_it_waiting(num_nodes, pair):
    first = pair(0, num_nodes)
    address = first._listener.getsockname()
    assert address[0] == "127.0.0.1"  # one machine, or the one that is the master of both
    silent = socket.create_connection(address)
    for said in (b"", b"\0\0\0\1", b"\0\0\0\1" + bytes(32), first._greeting(7), bytes(100)):
        with socket.create_connection(address) as stranger:
            stranger.sendall(said)
    second = pair(1, num_nodes)
    assert soon(lambda: list(first._connections.values()) == [1])  # though one has said nothing yet
    with socket.create_connection(address) as again:
        again.sendall(first._greeting(1))  # of one who is here
    assert soon(lambda: len(first._strangers) == 1)
    assert first.reason == second.reason == ""
    silent.close()
    (connection,) = second._connections
    connection.shutdown(socket.SHUT_RDWR)  # as the kernel does when a process dies
    assert soon(lambda: bool(first.reason)) and "rank 1 of 2 (process " in first.reason and "has died" in first.reason
