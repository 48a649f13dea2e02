"""Kernels of a GPU that give the same bits every time."""

import torch
from lightning import Callback, LightningModule, Trainer


class ExactKernels(Callback):
    """Keeps cuDNN to deterministic algorithms, so that a resumed run ends in the same bits on a GPU as well.

    By itself cuDNN may choose one for the gradient of a convolution that adds up in another order every time. Of all other
    operations of a training step the kernels have one order.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        torch.backends.cudnn.deterministic = True
