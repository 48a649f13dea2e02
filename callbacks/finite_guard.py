"""Stops a run whose numbers are no longer finite, with the last finite weights in place."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from app.errors import InputError
from app.runs.collectives import reduced
from app.torch_internals import norms_of_each


class FiniteGuard(Callback):
    """Undoes an outer step whose gradient is not finite, and all that follow, by a flag on the device.

    The gradient is checked after its sum over the processes, so that all ranks agree. Reading the flag would make the host
    wait for a GPU: there it is read every `trainer.log_every_n_steps` steps and before a checkpoint, on the CPU at every step.
    """

    def __init__(self):
        self._before: dict[int, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bad = torch.zeros((), dtype=torch.bool, device=pl_module.device)
        self._first_bad_step = torch.full((), -1, device=pl_module.device)
        self._module = pl_module
        if not pl_module.automatic_optimization:  # loss and weights are looked at after the step, and the checkpoint before stays
            return
        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(self._remember)
            optimizer.register_step_post_hook(self._undo)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        norms = torch.stack(norms_of_each(gradients))
        now_bad = ~norms.isfinite().all()
        self._first_bad_step = torch.where(now_bad & ~self._bad, trainer.global_step, self._first_bad_step)
        self._bad = self._bad | now_bad
        pl_module.log("train/outer_gradient_norm", norms.norm())

    def _remember(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # Before the closure: buffers that the training step changes are remembered too.
        self._before = {id(tensor): tensor.detach().clone() for tensor in self._state(optimizer)}

    @torch.no_grad()
    def _undo(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for tensor in self._state(optimizer):
            if tensor.device == self._bad.device:
                before = self._before.get(id(tensor))  # state made in this very step starts from zero
                tensor.copy_(torch.where(self._bad, torch.zeros_like(tensor) if before is None else before, tensor))
        self._before = {}

    @torch.no_grad()
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Undoes the part of a step that was done before the exception, so that a checkpoint holds whole steps."""
        if self._before:
            for optimizer in trainer.optimizers:
                for tensor in self._state(optimizer):
                    before = self._before.get(id(tensor))
                    tensor.copy_(torch.zeros_like(tensor) if before is None else before)

    def _state(self, optimizer: Optimizer) -> list[Tensor]:
        states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        return [*self._module.parameters(), *self._module.buffers(), *states]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not pl_module.automatic_optimization:
            norms = torch.stack(norms_of_each([parameter.detach() for parameter in pl_module.parameters()]))
            now_bad = ~(outputs["loss"].isfinite() & norms.isfinite().all())
            if trainer.world_size > 1:  # all ranks stop together
                now_bad = reduced(now_bad.int(), "max").bool()
            self._first_bad_step = torch.where(now_bad & ~self._bad, trainer.global_step, self._first_bad_step)
            self._bad = self._bad | now_bad
        if self._bad.device.type == "cpu" or trainer.global_step % trainer.log_every_n_steps == 0:
            self.stop_if_bad()

    def stop_if_bad(self) -> None:
        """Raises an InputError where a step had a loss or gradient that is not finite."""
        if self._bad:
            raise InputError(
                f"the loss or its gradient became NaN or infinite at step {int(self._first_bad_step)}; last.ckpt holds the last "
                f"finite weights: {self._module.remedy_for_nan}"
            )
