"""The kind of device that a run trains on."""

from typing import Any

from lightning.pytorch.accelerators import MPSAccelerator

from app.errors import InputError


def usable(accelerator: Any) -> Any:
    """What `--trainer.accelerator` means: as Lightning has it, but for Apple's GPUs, which do not know float64.

    Raises:
        InputError: an Apple GPU is asked for.
    """
    if accelerator not in ("auto", "gpu", "mps") or not MPSAccelerator.is_available():
        return accelerator
    if accelerator != "auto":
        raise InputError(f"--trainer.accelerator {accelerator}: Apple's GPUs have no float64; give cpu, or leave it out")
    return "cpu"
