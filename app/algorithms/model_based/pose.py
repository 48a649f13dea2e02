"""Flips and rotations of whole sets of images."""

from math import tau

import torch
import torch.nn.functional as F
from torch import Tensor


def posed(images: Tensor, uniform: Tensor, share: float) -> Tensor:
    """A share of the images, mirrored in either axis or not and turned about their centre by any angle; the others as they are.

    What comes from outside an image is 0.

    Args:
        images: of shape (rows, channels, height, width).
        uniform: random numbers in [0, 1) that decide each image's pose, of shape (rows, 4); the same for those posed alike.
        share: from 0 to 1.
    """
    moved, *mirrored, angle = uniform.to(images).unbind(-1)
    flips = [1 - 2 * (side < 0.5).to(images) for side in mirrored]
    cosine, sine = torch.cos(tau * angle), torch.sin(tau * angle)
    height, width = images.shape[2:]
    # From a pixel of the result to one of the image, in the coordinates of affine_grid, which run from -1 to 1 along each side.
    across = torch.stack([flips[0] * cosine, -flips[0] * sine * height / width, torch.zeros_like(angle)], -1)
    along = torch.stack([flips[1] * sine * width / height, flips[1] * cosine, torch.zeros_like(angle)], -1)
    grid = F.affine_grid(torch.stack([across, along], 1), list(images.shape), align_corners=False)
    sampled = F.grid_sample(images, grid, align_corners=False)
    return torch.where((moved < share)[:, None, None, None], sampled, images)
