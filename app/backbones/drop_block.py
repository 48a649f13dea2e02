"""Dropout of whole blocks of a feature map, by noise that belongs to the task."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.backbones.rows import Rows


class DropBlock(nn.Module):
    """Sets square blocks of each channel to zero, and scales what is left of a task up to keep its mean (Ghiasi et al. 2018).

    In training it works inside `Rows` with generators; in evaluation it is the identity.

    Args:
        rate: about the share that is dropped, from 0 to 1.
        block_size: pixels of a block's side, at most the map's; 1 is ordinary dropout.
        rising_steps: outer steps in which the rate rises from 0 to `rate`, evenly; 0 for the same rate from the start.
    """

    def __init__(self, rate: float, block_size: int = 1, rising_steps: int = 0):
        super().__init__()
        self.rate, self.block_size, self.rising_steps = rate, block_size, rising_steps

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        around = Rows.current()
        generators = around.noise
        rate = self.rate * min(1.0, (around.step + 1) / self.rising_steps) if self.rising_steps else self.rate
        rows, (channels, height, width) = len(x) // len(generators), x.shape[1:]
        size = min(self.block_size, height, width)
        corners = (rows, channels, height - size + 1, width - size + 1)  # where a whole block fits
        share = rate * height * width / (size**2 * corners[2] * corners[3])
        # In float32 whatever x is: the same blocks in every precision.
        draws = [torch.rand(corners, generator=g, device=x.device, dtype=torch.float32) for g in generators]
        blocks = (torch.cat(draws) < share).to(torch.float32)
        kept = 1 - F.max_pool2d(F.pad(blocks, [size - 1] * 4), size, stride=1)
        kept = kept.unflatten(0, (len(generators), rows))
        kept = kept / kept.mean((1, 2, 3, 4), keepdim=True).clamp(min=1 / kept[0].numel())
        return x * kept.flatten(0, 1).to(x.dtype)
