"""Two processes do what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import QUIET, ROOT, SINUSOID, fork, start
from ddp_worker import cases, run, work

CASES = {case.name: case for case in cases()}
LIMITS = {"64-true": 1e-10, "32-true": 1e-5}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """What two processes wrote."""
    folder, port = tmp_path_factory.mktemp("ddp"), free_port()
    processes = [fork(work, rank, port, folder) for rank in range(2)]
    for process in processes:
        process.join(240)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0], "".join(log.read_text() for log in folder.glob("*.log"))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name, pair):
    one, two, other = run(CASES[name]), *(torch.load(pair / f"{name}.{rank}.pt") for rank in range(2))
    limit = LIMITS[CASES[name].precision]
    for key, expected in one["state"].items():
        assert torch.equal(two["state"][key], other["state"][key]), key
        difference = (two["state"][key] - expected).norm()
        assert difference <= limit * expected.norm(), f"{key}: {float(difference / expected.norm())}"
    assert len(one["scores"]) == 9
    print(name, float(((two["scores"]-one["scores"]).abs()/one["scores"].abs().clamp(min=1e-300)).max()), max(float((two["state"][k]-e).norm()/e.norm()) for k,e in one["state"].items() if e.norm()>0))


def test_test_scores_every_episode_once(pair):
    """Untrained weights, so that nothing but the sharing of the episodes can differ."""


def test_replicas_that_differ_are_found(pair):
    for rank in range(2):
        message = (pair / f"disturbed.{rank}").read_text()
        assert "rank 1 differ" in message and "at step" in message
