"""The devices that a run trains on."""

import os
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.accelerators import MPSAccelerator

from app.errors import InputError
from app.runs.processes import job_from_outside


def devices(config: Any, block_size: int | None, data: LightningDataModule) -> dict[str, Any]:
    """What `--trainer.accelerator`, `--trainer.devices` and `--trainer.num_nodes` mean here, as the Trainer takes them.

    Args:
        config: the section of the Trainer.
        block_size: of the method; its blocks are computed alike by any number of processes.
        data: says how many processes can share a step.

    Raises:
        InputError: an Apple GPU is asked for, or SLURM does not say how many tasks each machine has.
    """
    chosen = {"accelerator": usable(config.accelerator)}
    if config.devices != "auto" or config.num_nodes != 1:
        return chosen
    if job := job_from_outside():
        return chosen | {"devices": job.per_node, "num_nodes": job.nodes}
    on_cpu = chosen["accelerator"] == "cpu" or (chosen["accelerator"] == "auto" and not torch.accelerator.is_available())
    if block_size and on_cpu and config.strategy == "auto":
        chosen["devices"] = processes_of_blocks(block_size, data)
    return chosen


def usable(accelerator: Any) -> Any:
    """What `--trainer.accelerator` means: as Lightning has it, but for Apple's GPUs, which do not know float64.

    Raises:
        InputError: an Apple GPU is asked for.
    """
    if accelerator not in ("auto", "gpu", "mps") or not MPSAccelerator.is_available():
        return accelerator
    if accelerator != "auto":
        raise InputError(f"--trainer.accelerator {accelerator}: Apple's GPUs have no float64; give cpu, or leave it out")
    return "cpu"


def processes_of_blocks(block_size: int, data: LightningDataModule) -> int:
    """A process for each thread that torch would use, or as many fewer as can share a step: a block is computed by one thread.

    Args:
        block_size: tasks of a block.
        data: says how many processes can share a step.
    """
    if "LOCAL_RANK" in os.environ:  # another process has counted, and started this one
        return int(os.environ.get("WORLD_SIZE", "1"))
    for number in range(torch.get_num_threads(), 1, -1):
        try:
            data.check_processes(number, block_size)
        except InputError:
            continue
        print(f"--trainer.devices auto: {number} processes of one thread share the blocks of a step")
        return number
    return 1
