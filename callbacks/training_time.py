"""How long a fit has taken."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class TrainingTime(Callback):
    """Counts the seconds of a fit, its validations among them, and those that the processor worked for it.

    Both are kept in the checkpoints, so that a fit that was broken off and resumed has the sum of its parts. Where the
    processor's are far fewer than the threads would allow, other work shared the machine.

    Attributes:
        seconds: by the clock.
        processor_seconds: of all threads of this process.
    """

    def __init__(self):
        self.seconds = self.processor_seconds = 0.0
        self._since: tuple[float, float] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic(), time.process_time()

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"seconds": self.seconds, "processor_seconds": self.processor_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.processor_seconds = state_dict["seconds"], state_dict["processor_seconds"]

    def _count(self) -> None:
        if self._since is not None:
            began, worked = self._since
            self._since = time.monotonic(), time.process_time()
            self.seconds += self._since[0] - began
            self.processor_seconds += self._since[1] - worked
