"""A tiny pretrained network, with weights of no use."""

from pathlib import Path

import pytest
import torch

NAME = "test_resnet"
SIZE = 32


def write_weights(path: Path, name: str = NAME, seed: int = 0, num_classes: int = 10) -> Path:
    """A file of random weights of a network of timm; skips the test where timm is not installed."""
    timm = pytest.importorskip("timm", reason="timm is not installed: uv sync --extra pretrained")
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(timm.create_model(name, num_classes=num_classes).state_dict(), path)
    return path
