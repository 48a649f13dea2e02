"""What the processes of test_ddp run: every algorithm, and torchrun."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from torch.distributed import run as launcher

from app.algorithms.metric_based.protonet import ProtoNet
from app.algorithms.model_based.anp import ANP
from app.algorithms.model_based.np import NP
from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.reptile import Reptile
from app.backbones.conv4 import Conv4
from app.errors import InputError
from app.learners.meta_algorithm import MetaAlgorithm
from callbacks.finite_guard import FiniteGuard
from callbacks.pictures.class_confusion import ClassConfusion
from callbacks.replica_check import ReplicaCheck
from callbacks.step_seed import StepSeed
from datamodules.base.episodic import EpisodicDataModule
from datamodules.gaussian_process import GaussianProcess
from datamodules.sinusoid import Sinusoid
from helpers.small import ALGORITHMS, ONE_OF_EACH_BASE, SMALL_METHODS, Blots, algorithm_for

STEPS = {"64-true": 6, "32-true": 3}
OPTIONS = {"inner_lr": 0.01, "inner_steps": 2, "eval_inner_steps": 2, "inner_batch_size": 4, "step_size_range": (0.01, 0.02)}
OWN = {"chunks", "evaluate_tasks", "losses", "outer_gradient"}  # what processes share out, and bring together
DATA = {
    "Sinusoid": lambda: Sinusoid(shots=5, queries=5, meta_batch_size=4, val_episodes=5, test_episodes=9),
    "Blots": lambda: Blots(ways=3, shots=2, queries=2, meta_batch_size=4, val_episodes=5, test_episodes=9),
    "GaussianProcess": lambda: GaussianProcess(
        num_context=(2, 6), num_target=(2, 4), max_points=8, meta_batch_size=4, val_episodes=5, test_episodes=9
    ),
}
BACKBONES = {"Sinusoid": None, "Blots": partial(Conv4, width=4), "GaussianProcess": None}


class Case(NamedTuple):
    algorithm: type[MetaAlgorithm]
    data: str
    precision: str
    block_size: int | None = None
    hypergradient: str = "unrolled"

    @property
    def name(self) -> str:
        return f"{self.algorithm.__name__}-{self.data}-{self.precision}-{self.hypergradient}"

    def build(self) -> tuple[MetaAlgorithm, EpisodicDataModule]:
        data = DATA[self.data]()
        small = {**SMALL_METHODS.get(self.algorithm.__name__, {}), "hypergradient": self.hypergradient}
        if self.block_size:  # enough of them for four processes
            data.meta_batch_size, data.num_episodes = 4 * self.block_size, {"val": 9, "test": 9}
            small = {**small, "block_size": self.block_size}
        return algorithm_for(self.algorithm, data, backbone=BACKBONES[self.data], **OPTIONS | small), data


def cases() -> Iterator[Case]:
    """Every algorithm with bases, a step or an evaluation of its own, one on data of each kind, and three in float32 as well."""
    for algorithm in ALGORITHMS:
        if not (algorithm.__name__ in (*ONE_OF_EACH_BASE, "MAML", "ProtoNet") or vars(algorithm).keys() & OWN):
            continue
        data = "Blots" if "classification" in algorithm.task_types else "Sinusoid"
        for name in DATA if algorithm is MAML else (data,):
            yield Case(algorithm, name, "64-true")
        if algorithm in (MAML, ProtoNet, NP):
            yield Case(algorithm, data, "32-true")


BLOCKS = [
    Case(algorithm, data, "32-true", 2, *hypergradient)
    for algorithm, data, *hypergradient in (
        (MAML, "Blots"),
        (MAML, "Blots", "mixed"),
        (Reptile, "Sinusoid"),
        (ProtoNet, "Blots"),
        (ANP, "GaussianProcess"),
    )
]


class KeepScores(Callback):
    """Keeps the numbers and scores of all test episodes, and what they come to."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scores = pl_module._tally.rows()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.evaluation = pl_module.evaluation


class KeepConfusion(ClassConfusion):
    """Keeps the counts of the first process instead of writing them."""

    counts: tuple[torch.Tensor, ...] = ()

    def _write(self, trainer: Trainer, run_dir: Path) -> None:
        self.counts = tuple(torch.from_numpy(counts) for counts in (self._taken, self._met, self._episodes))


class Disturb(Callback):
    """Changes one weight, on the last process alone, in the smallest possible way."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_rank == trainer.world_size - 1:
            weight = next(pl_module.parameters()).flatten()
            weight[-1] = torch.nextafter(weight[-1], weight[-1] + 1)


def run(case: Case, devices: int = 1, callbacks: tuple = ()) -> dict[str, Any]:
    """Trains and tests; returns what the run ends with."""
    algorithm, data = case.build()
    keep, confusion = KeepScores(), KeepConfusion()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=case.precision,
        max_steps=STEPS[case.precision],
        max_epochs=-1,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeed(), *callbacks, FiniteGuard(), ReplicaCheck(), keep, confusion],
    )
    trainer.fit(algorithm, datamodule=data)
    outer = [tensor for kept in trainer.optimizers[0].state.values() for tensor in kept.values()]
    state = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    trainer.test(algorithm, datamodule=data, verbose=False)
    return {"state": state, "scores": keep.scores, "evaluation": keep.evaluation, "confusion": confusion.counts, "outer": outer}


def torchrun(arguments: list[str], output: Path) -> None:
    """The launcher on one node; what it and its processes say goes to the file."""
    redirect(output)
    launcher.main(arguments)


def redirect(output: Path) -> None:
    with output.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def begin(rank: int, processes: int, port: int, output: Path) -> None:
    """Makes this process one of several."""
    addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes, "NODE_RANK": 0}
    os.environ.update({name: str(value) for name, value in {**addresses, "RANK": rank, "LOCAL_RANK": rank}.items()})
    redirect(output)


def work_in_blocks(rank: int, processes: int, port: int, folder: Path) -> None:
    """Process `rank` of several: all cases of blocks."""
    begin(rank, processes, port, folder / f"{rank}.log")
    for case in BLOCKS:
        torch.save(run(case, processes), folder / f"{case.name}.{rank}.pt")


def work(rank: int, port: int, folder: Path) -> None:
    """Process `rank` of two: all cases, then one that must fail."""
    begin(rank, 2, port, folder / f"{rank}.log")
    for case in cases():
        torch.save(run(case, devices=2), folder / f"{case.name}.{rank}.pt")
    message = "replicas that differ went unnoticed"
    try:
        run(next(cases()), 2, (Disturb(),))
    except InputError as error:
        message = str(error)
    (folder / f"disturbed.{rank}").write_text(message)
