"""The precision of the inner loop under mixed precision."""

from typing import Literal

from lightning import Callback, LightningModule, Trainer

from app.errors import InputError


class InnerPrecision(Callback):
    """Chooses the precision of the inner loop, and refuses the one that cannot work.

    Under `bf16-mixed` the inner loop is computed in float32 and the rest, the query set, in bfloat16: the error of a bfloat16
    inner gradient grows with every inner step, and on narrow networks turns the outer gradient round. float16 would need its
    small inner gradients scaled at every inner step, so `16-mixed` is refused.

    Args:
        inner: full leaves autocast inside the inner loop; mixed follows --trainer.precision.
    """

    def __init__(self, inner: Literal["mixed", "full"] = "full"):
        self.inner = inner

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        refuse_float16(trainer.precision)
        pl_module.autocast_inner_loop = self.inner == "mixed"


def refuse_float16(precision: str | int | None) -> None:
    """Raises an InputError where the inner loop would compute in float16."""
    if str(precision) in ("16", "16-mixed", "16-true"):
        raise InputError(
            f"--trainer.precision {precision} loses the inner gradients, which nothing scales; "
            "use bf16-mixed (the same speed, float32's range) or 32-true"
        )
