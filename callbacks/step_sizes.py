"""Step sizes that are meta-learned."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from app.lightning_internals import is_logged


class StepSizes(Callback):
    """Logs mean and standard deviation of the learned step sizes of each layer, at every log interval.

    Only for an algorithm that has some (`learned_step_sizes`), such as Meta-SGD; with others it does nothing.
    """

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not is_logged(trainer):
            return
        layers: dict[str, list[torch.Tensor]] = {}
        for name, sizes in pl_module.learned_step_sizes().items():
            layers.setdefault(name.rpartition(".")[0] or name, []).append(sizes.flatten())
        for layer, parts in layers.items():
            sizes = torch.cat(parts)
            statistics = {"step_size": sizes.mean(), "step_size_std": sizes.std(correction=0)}
            pl_module.log_dict({f"train/{name}/{layer}": value for name, value in statistics.items()}, batch_size=1)
