"""Runs of several processes, as torchrun starts them."""

import socket
from pathlib import Path

import torch

from helpers.command_line import QUIET, SINUSOID, start


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


RUN = [*SINUSOID, *QUIET, "--model.inner_lr=0.01", "--trainer.devices=2", "--trainer.strategy=ddp"]


def start_pair(*args, folder: Path) -> list:
    """Both processes of one run, as torchrun starts them."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    run_dir = f"--trainer.default_root_dir={folder}"
    return [
        start("fit", *RUN, run_dir, *args, output=folder.with_suffix(f".{rank}"), **job, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]


def end(processes: list) -> list[int]:
    for process in processes:
        process.join(240)
    return [process.exitcode for process in processes]


def output(folder: Path) -> str:
    return "".join(folder.with_suffix(f".{rank}").read_text() for rank in range(2))


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
