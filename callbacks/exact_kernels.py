"""Kernels of a GPU that give the same bits every time, and those of float32."""

import torch
from lightning import Callback, LightningModule, Trainer


def keep_exact() -> None:
    """Keeps cuDNN to deterministic algorithms and to float32, whose numbers it would otherwise round to TF32's 10 bits.

    By itself cuDNN may choose an algorithm for the gradient of a convolution that adds up in another order every time, and a
    resumed run would not end in the same bits; of all other operations of a training step the kernels have one order. In TF32 the
    meta-gradient would depend on `--model.stacking`. Whoever wants speed for digits has `--trainer.precision bf16-mixed`.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False


class ExactKernels(Callback):
    """Calls `keep_exact` before a run begins."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        keep_exact()
