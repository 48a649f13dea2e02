"""A continual method that is meta-learned in one process or two, and classes to meta-learn it on."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from torch import Tensor

from app.backbones.mlp import MLP
from app.continual.meta_learned.meta_continual import MetaContinual
from app.continual.methods.er import ER
from callbacks.replica_check import ReplicaCheck
from callbacks.step_seed import StepSeed
from datamodules.files.image_split import ImageSplit
from helpers.ddp_worker import begin
from helpers.small import Blots

LEARN = {"forward": ("lr", "replay_weight"), "reverse": ("initialisation", "lr_per_weight")}


class Characters(Blots):
    """Classes of a split with names of their own."""

    def read_split(self, split: str) -> ImageSplit:
        found = super().read_split(split)
        return replace(found, class_names=[f"{split} {name}" for name in found.class_names])


def meta_learned(mode: str, processes: int = 1, steps: int = 3) -> dict[str, Tensor]:
    """The outer variables after some steps of two streams, and the losses of three validation streams."""
    torch.manual_seed(0)
    data = Characters(ways=3, shots=3, queries=2, meta_batch_size=2, val_episodes=3)
    method = partial(ER, memory=6, optimizer=partial(torch.optim.SGD, lr=0.05))
    network = partial(MLP, hidden_sizes=(8,))
    meta = MetaContinual((1, 16, 16), 3, 3, method=method, meta_learn=LEARN[mode], backbone=network, mode=mode)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision="64-true",
        max_steps=steps,
        max_epochs=-1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[StepSeed(), ReplicaCheck()],
        **quiet,
    )
    trainer.fit(meta, datamodule=data)
    found = {name: tensor.clone() for name, tensor in meta.state_dict().items()}
    trainer.validate(meta, datamodule=data, verbose=False)
    return found | {"loss": torch.tensor(meta.evaluation["scores"]["loss"]["mean"], dtype=torch.float64)}


def work(rank: int, port: int, folder: Path) -> None:
    """Process `rank` of two."""
    begin(rank, 2, port, folder / f"{rank}.log")
    for mode in LEARN:
        torch.save(meta_learned(mode, 2), folder / f"{mode}.{rank}.pt")
