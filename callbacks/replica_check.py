"""A check that all processes of a run hold the same weights."""

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from app.errors import InputError


class ReplicaCheck(Callback):
    """Compares a checksum of the bits of all weights and buffers across processes, at each validation and at the end."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1 or getattr(pl_module, "is_replicated", False):
            return
        sums = pl_module.all_gather(checksum(pl_module.state_dict()))
        if not bool((sums == sums[0]).all()):
            ranks = [rank for rank, value in enumerate(sums.tolist()) if value != sums[0]]
            raise InputError(
                f"the weights of rank {', '.join(map(str, ranks))} differ from those of rank 0 at step {trainer.global_step}; "
                "resume with --ckpt_path last, and report the configuration"
            )


def checksum(state: dict[str, Tensor]) -> Tensor:
    """Sum of the bytes of all tensors, each weighted by its position, as a wrapping int64."""
    total = torch.zeros((), dtype=torch.int64, device=next(iter(state.values())).device)
    for tensor in state.values():
        octets = tensor.detach().contiguous().view(-1).view(torch.uint8).to(torch.int64)
        total = total * 31 + (octets * torch.arange(1, len(octets) + 1, device=octets.device)).sum()
    return total
