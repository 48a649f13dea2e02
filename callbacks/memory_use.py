"""Memory of the process and of its device."""

import resource
import sys
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from app.lightning_internals import is_logged

UNIT = 1 if sys.platform == "darwin" else 2**10  # bytes, of what the system calls ru_maxrss


class MemoryUse(Callback):
    """Logs the most memory so far, in GiB, of the first process and of tensors on its GPU, at every log interval.

    Lightning's DeviceStatsMonitor logs a hundred counters of the allocator, and on the CPU the use of the whole machine.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not is_logged(trainer):
            return
        used = {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT}
        if pl_module.device.type == "cuda":
            used["device_memory"] = torch.cuda.max_memory_allocated(pl_module.device)  # counted on the host
        pl_module.log_dict({f"system/{name}_gib": num_bytes / 2**30 for name, num_bytes in used.items()}, batch_size=1)
