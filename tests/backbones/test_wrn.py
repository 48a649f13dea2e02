"""The wide residual network against plain layers and its published size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from app.backbones import WRN
from app.errors import InputError


def test_layers_and_parameters_of_the_paper():
    net = WRN((3, 32, 32), 10)
    convolutions = [module for module in net.modules() if getattr(module, "kernel_size", 0) == (3, 3)]
    assert len(convolutions) == 25 and sum(module.stride == (2, 2) for module in convolutions) == 2
    assert [module.out_channels for module in convolutions] == [16, *[160] * 8, *[320] * 8, *[640] * 8]
    assert sum(parameter.numel() for parameter in net.parameters()) == 36_479_194
    assert net.map_shape == (640, 8, 8) and net.num_features == 640


def norm(x):
    return F.relu(F.batch_norm(x, None, None, training=True))


def test_equals_plain_layers():
    torch.manual_seed(0)
    net, x = WRN((2, 17, 20), 3, depth=16, width=3).double(), torch.randn(4, 2, 17, 20, dtype=torch.float64)
    weights = iter([module.weight for module in net.modules() if isinstance(module, nn.Conv2d)])
    expected = F.conv2d(x, next(weights), padding=1)
    for stride in (1, 2, 2):
        for changes in (True, False):
            step = stride if changes else 1
            started = norm(expected)
            inside = F.conv2d(norm(F.conv2d(started, next(weights), padding=1, stride=step)), next(weights), padding=1)
            expected = inside + (F.conv2d(started, next(weights), stride=step) if changes else expected)
    assert_close(net(x), net.head(norm(expected).mean((2, 3))), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 27}, "--model.backbone.depth is 27; give 10, 16, 22, 28"),
        ({"depth": 4}, "--model.backbone.depth is 4; give 10"),
        ({"width": 0}, "--model.backbone.width is 0; give at least 1"),
        ({"input_shape": (4,)}, "WRN takes images, .* choose --model.backbone MLP"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        WRN(**{"input_shape": (3, 32, 32), "output_size": 5} | options)
