"""A frozen network before the data: pictures become vectors once, and are drawn as such."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from app.errors import InputError, check_at_least
from app.pretrained.network import PretrainedNetwork, timm
from datamodules.files.feature_cache import cached_rows
from datamodules.files.image_split import ImageSplit

BLOCK = 32  # pictures that the network sees at a time, always: so a picture's features depend on no others
TOGETHER = 2 * BLOCK  # pictures that are prepared while the network computes those before


class Encoder:
    """A network of timm that makes a vector of each picture; it is not trained.

    Pictures are resized, cropped and normalised as timm does it for that network. The features are computed once, into the
    cache, under a key of pictures, weights, preprocessing and versions; a run that was stopped meanwhile goes on.

    Args:
        name: of the network, such as tf_efficientnet_lite0; what follows --data.encoder.
        weights: file of its weights, safetensors or tensors alone; null for those that timm downloads.
        size: height and width of its inputs in pixels, null for the network's own; smaller ones are faster.
        normalises: whether each vector is divided by its length, so that distances compare directions.
        dtype: of the features in the cache.
    """

    named_by = "name"  # the option whose value may stand in place of the class

    def __init__(
        self,
        name: str,
        weights: Path | None = None,
        size: int | None = None,
        normalises: bool = True,
        dtype: Literal["float16", "float32"] = "float16",
    ):
        check_at_least(8, "data.encoder", size=size)
        self.source = PretrainedNetwork(name, weights and str(weights), size)
        self.normalises, self.dtype = normalises, dtype
        self.traits = self.source.traits
        _ = self.source.path  # a file that is absent is said at once

    # A form that pictures are decoded in, as datamodules.files.pictures has it

    draft = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.traits.input_shape

    @property
    def key(self) -> str:
        return f"{self.traits.recipe} {timm().__version__}"

    def __call__(self, image: Image.Image) -> np.ndarray:
        return self.traits.prepare(image)

    # Features

    @property
    def num_features(self) -> int:
        """Numbers in the vector of a picture."""
        return self.traits.num_features

    def describe(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        source = self.source
        return {
            "name": source.name,
            "weights": source.weights and str(source.path.absolute()),
            "size": source.size,
            "normalises": self.normalises,
            "dtype": self.dtype,
            "digest": source.digest,
        }

    @property
    def identity(self) -> list[Any]:
        """What the features of a picture depend on, but for rounding."""
        return [self.source.name, self.source.digest, self.traits.recipe, self.normalises, self.dtype]

    def encoded(self, split: ImageSplit, cache_dir: Path | None, name: str, prepared: bool) -> "EncodedSplit":
        """The split with features in place of the pictures.

        Args:
            split: of pictures, decoded or not.
            cache_dir: null for the user's cache folder.
            name: of the data set.
            prepared: whether the pictures are in this form already; else they are of a size of their own.
        """
        return EncodedSplit(self, split, cache_dir, name, prepared)

    def prepared(self, images: np.ndarray) -> np.ndarray:
        """Pixels of any size, uint8 of shape (pictures, channels, height, width), in this form."""
        return np.stack([self(Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))) for image in images])


class EncodedSplit:
    """An ImageSplit whose `images` are features, of shape (pictures, features): computed where they are first asked for.

    Args:
        encoder: the encoder.
        split: of pictures; the other arguments as of `Encoder.encoded`.
    """

    def __init__(self, encoder: Encoder, split: ImageSplit, cache_dir: Path | None, name: str, prepared: bool):
        self.encoder, self.split, self.cache_dir, self.name, self.prepared = encoder, split, cache_dir, name, prepared
        self.counts, self.class_names = split.counts, split.class_names
        self.digest = sha256(json.dumps([split.digest, encoder.identity]).encode()).hexdigest()

    @cached_property
    def images(self) -> np.ndarray:
        encoder, pictures = self.encoder, self.split.images
        content = getattr(pictures, "stamp", self.split.digest)
        key = json.dumps([content, encoder.identity, encoder.key, torch.__version__, PIL.__version__])
        shape, compute = (len(pictures), encoder.num_features), _Pipeline(encoder, pictures, self.prepared)
        try:
            return cached_rows(self.cache_dir, f"{self.name}-features", key, shape, encoder.dtype, compute, TOGETHER)
        finally:
            compute.close()


class FrozenNetwork(nn.Module):
    """From pixels to features, rounded to what the cache keeps.

    Args:
        encoder: whose network it is.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.net = encoder.source.load().requires_grad_(False)
        self.normalises, self.dtype = encoder.normalises, getattr(torch, encoder.dtype)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(encoder.traits, name))[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of pixels 0..255 in the encoder's form, of shape (rows, features)."""
        inputs = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        features = self.net(inputs)
        return (functional.normalize(features, dim=1) if self.normalises else features).to(self.dtype)

    @torch.inference_mode()
    def in_blocks(self, pixels: np.ndarray) -> Tensor:
        """The same of any number of pictures, on the CPU, in blocks of one fixed size, the last filled up.

        Raises:
            InputError: some features are no finite numbers.
        """
        device, found = self.mean.device, []
        for first in range(0, len(pixels), BLOCK):
            part = torch.from_numpy(np.ascontiguousarray(pixels[first : first + BLOCK]))
            whole = part.new_zeros(BLOCK, *part.shape[1:])
            whole[: len(part)] = part
            found.append(self(whole.to(device).contiguous(memory_format=torch.channels_last))[: len(part)].cpu())
        features = torch.cat(found)
        if not features.isfinite().all():
            narrow = self.dtype == torch.float16
            remedy = "give --data.encoder.dtype float32" if narrow else "replace the file of --data.encoder.weights"
            raise InputError(f"--data.encoder makes features that are not finite; {remedy}")
        return features


def frozen(encoder: Encoder, device: torch.device | str | None = None) -> FrozenNetwork:
    """The network of an encoder on a device, null for a GPU where there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return FrozenNetwork(encoder).to(device, memory_format=torch.channels_last)


class _Pipeline:
    """Features of pictures from one row to another; the following pictures are prepared meanwhile.

    Args:
        encoder: the encoder.
        images: all pictures of a split.
        prepared: as of `Encoder.encoded`.
    """

    def __init__(self, encoder: Encoder, images: Any, prepared: bool):
        self.encoder, self.images, self.is_prepared = encoder, images, prepared
        self.network: FrozenNetwork | None = None
        self.thread = ThreadPoolExecutor(1)
        self.ahead: tuple[int, Any] | None = None

    def __call__(self, first: int, end: int) -> np.ndarray:
        self.network = self.network or frozen(self.encoder)
        pixels = self.ahead[1].result() if self.ahead and self.ahead[0] == first else self._pixels(first, end)
        if end < len(self.images):
            self.ahead = end, self.thread.submit(self._pixels, end, min(2 * end - first, len(self.images)))
        return self.network.in_blocks(pixels).numpy()

    def _pixels(self, first: int, end: int) -> np.ndarray:
        images = self.images[first:end]
        return images if self.is_prepared else self.encoder.prepared(images)

    def close(self) -> None:
        """Leaves the pictures that nobody asks for any more."""
        if self.ahead:
            with suppress(Exception):  # of a picture that was not wanted
                self.ahead[1].cancel() or self.ahead[1].result()
        self.thread.shutdown()
