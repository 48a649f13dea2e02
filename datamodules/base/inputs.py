"""What is kept of a picture, and the input that it becomes."""

import torch
from torch import Tensor


def as_inputs(kept: Tensor) -> Tensor:
    """Pixels 0..255, uint8, as inputs in 0..1; features as they are; in the default dtype."""
    inputs = kept.to(torch.get_default_dtype())
    return inputs / 255 if kept.dtype == torch.uint8 else inputs
