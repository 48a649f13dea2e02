"""The processes of a job, as their environment describes them before any process group exists."""

import os
from typing import NamedTuple

from app.errors import InputError


class Job(NamedTuple):
    """How many processes torchrun or srun has started.

    Attributes:
        nodes: machines.
        per_node: processes on each.
    """

    nodes: int
    per_node: int


def is_rank_zero() -> bool:
    """Whether this process is the first of its job."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"))


def job_from_outside() -> Job | None:
    """The job that torchrun or srun has made of this command; null where the command starts its own processes.

    Raises:
        InputError: SLURM was told how many tasks there are, not how many each machine has.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        return Job(int(environment["GROUP_WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"]))
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    nodes, tasks = (int(environment.get(f"SLURM_{name}", "1")) for name in ("NNODES", "NTASKS"))
    if "SLURM_NTASKS_PER_NODE" in environment:
        return Job(nodes, int(environment["SLURM_NTASKS_PER_NODE"]))
    if tasks > 1:
        raise InputError(
            f"SLURM started {tasks} tasks by --ntasks, which does not say how many each machine has; give sbatch --nodes={nodes} "
            f"--ntasks-per-node={-(-tasks // nodes)} instead"
        )
    return None


def comes_back() -> bool:
    """Whether the launcher starts the same command again after a fault, so that it must go on where it was.

    Raises:
        InputError: torchrun would start it again on several nodes.
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and int(os.environ["GROUP_WORLD_SIZE"]) > 1:
        # Its agents count them each for itself, the processes meet under this number, and wait for each other for ever.
        raise InputError(
            f"torchrun --max_restarts {restarts} on {os.environ['GROUP_WORLD_SIZE']} nodes would hang at the first restart; "
            "leave it out, and start the same command again with --ckpt_path last"
        )
    return restarts > 0 or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
