"""A network of timm with published weights, which is trained on."""

from math import floor
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.backbones.elementary import Elementary
from app.backbones.frozen import freeze as freeze_weights
from app.errors import InputError, check_at_least
from app.pretrained.network import PretrainedNetwork, Traits, timm
from app.torch_internals import is_transformed


class Pretrained(nn.Module):
    """A network of timm that begins with published weights, then a linear head.

    It takes pixels from 0 to 1, grey or in colour, of any size: these are resized, cropped and normalised on the device as timm
    does it for that network. Norms keep their published statistics and nothing is dropped, in training too: what becomes of a
    picture depends on no other.

    Args:
        input_shape: channels, height and width of a picture.
        output_size: outputs of the head; null for none, the network is then an embedding.
        name: of the network, such as tf_efficientnet_lite0.
        weights: file of its weights, safetensors or tensors alone; null for those that timm downloads.
        size: height and width of its inputs in pixels, null for the network's own; smaller ones are faster.
        freeze: its first so many stages stay as they are, the stem is the first; 0 for none.
    """

    needs_pixels = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        name: str,
        weights: Path | None = None,
        size: int | None = None,
        freeze: int = 0,
    ):
        super().__init__()
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise InputError(
                f"Pretrained takes pictures, grey or in colour, and the data has inputs of shape {tuple(input_shape)}; choose "
                "--model.backbone MLP"
            )
        check_at_least(8, "model.backbone", size=size)
        check_at_least(0, "model.backbone", freeze=freeze)
        source = PretrainedNetwork(name, weights and str(weights), size, "model.backbone")
        net = source.load()
        _freeze_stages(net, freeze, name)
        self.num_features = source.traits.num_features
        self.body = nn.Sequential(Prepared(source.traits, tuple(input_shape[1:])), Features(net))
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.body.eval()
        return self


class Features(nn.Module):
    """From inputs as the network takes them to a vector of each.

    Args:
        net: without its classifier.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if is_transformed(x) or any(map(is_transformed, self.net.parameters())):
            with Elementary():
                return self.net(x)
        return self.net(x)


class Prepared(nn.Module):
    """From pixels to inputs of the network: resized, cut out of the middle, and normalised.

    Both axes are resampled by a matrix, as torch's resizing with antialiasing does it, so that vmap has a rule for it.

    Args:
        traits: of the network.
        size: height and width of the pictures.
    """

    def __init__(self, traits: Traits, size: tuple[int, int]):
        super().__init__()
        mode, share, interpolation = traits.crop
        wanted = traits.input_shape[1:]
        scaled = [floor(side / share) for side in wanted]
        if mode != "squash":  # the shorter side has that length, and the longer one keeps the proportion
            scaled = [int(scaled[0] * side / min(size)) for side in size]
        for name, *sides in zip(("rows", "columns"), size, scaled, wanted, strict=True):
            self.register_buffer(name, _resampling(*sides, interpolation), persistent=False)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(traits, name))[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = self.rows.to(pixels) @ pixels @ self.columns.to(pixels).mT
        return (pixels.clamp(0, 1) - self.mean.to(pixels)) / self.std.to(pixels)


def _resampling(before: int, after: int, kept: int, interpolation: str) -> Tensor:
    """From lines of pixels to the middle ones of those that they are resized to, of shape (kept, before)."""
    eye = torch.eye(before)[None, None]
    mode = interpolation if interpolation in ("bilinear", "bicubic") else "bicubic"
    matrix = F.interpolate(eye, (after, before), mode=mode, antialias=True)[0, 0]
    first = round((after - kept) / 2)
    return matrix[first : first + kept]


def _freeze_stages(net: nn.Module, count: int, name: str) -> None:
    """Freezes the first stages."""
    if not count:
        return
    stages = timm().models.group_parameters(net, net.group_matcher(coarse=True))
    if count > len(stages):
        raise InputError(f"--model.backbone.freeze {count} is more than the {len(stages)} stages of {name}; give at most that")
    for stage in sorted(stages)[:count]:
        freeze_weights(net, stages[stage])
