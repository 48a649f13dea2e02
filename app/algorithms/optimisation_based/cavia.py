"""CAVIA."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from app.algorithms.optimisation_based.unrolled_algorithm import UnrolledAlgorithm
from app.backbones import BackboneCallable
from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_pool import TaskMaxPool2d
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.inner_loop.step_rules import ConstantStep


class Filmed(nn.Module):
    """A layer whose output is scaled and shifted, each channel by a number of its own (FiLM, Perez et al. 2018).

    Args:
        layer: of a network of images.
        num_channels: of its output.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: nn.Module, num_channels: int):
        super().__init__()
        self.layer = layer
        # What the context makes of them takes their place.
        self.register_buffer("scale", torch.ones(num_channels), persistent=False)
        self.register_buffer("shift", torch.zeros(num_channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        scale, shift = (vector.to(y.dtype).view(-1, *(1 for _ in y.shape[2:])) for vector in (self.scale, self.shift))
        return scale * y + shift


class ContextNetwork(nn.Module):
    """A backbone with context parameters, zero at the start of every task.

    They join the input of a network without norms; of one with norms they scale and shift the output of a norm, or of the pooling
    that follows it, by a linear layer.

    Args:
        backbone: makes the network.
        input_shape: shape of one input.
        output_size: ways, or dimensions of the target.
        num_context: context parameters.
        film_layer: position of the norm, from 0.
    """

    context: Tensor

    def __init__(
        self, backbone: BackboneCallable, input_shape: tuple[int, ...], output_size: int, num_context: int, film_layer: int
    ):
        super().__init__()
        self.register_buffer("context", torch.zeros(num_context), persistent=False)
        self.backbone = backbone(input_shape, output_size)
        norms = [name for name, module in self.backbone.named_modules() if isinstance(module, TaskBatchNorm)]
        if not norms:
            self.filmed = None
            self.backbone = backbone((torch.Size(input_shape).numel() + num_context,), output_size)
            return
        if not 0 <= film_layer < len(norms):
            raise InputError(f"--model.film_layer is {film_layer}, and the backbone has {len(norms)} norms, numbered from 0")
        block, _, name = norms[film_layer].rpartition(".")
        layers = dict(self.backbone.get_submodule(block).named_children())
        num_channels = len(layers[name].bias)
        following = list(layers)[list(layers).index(name) + 1 :]
        if following and isinstance(layers[following[0]], TaskMaxPool2d):
            name = following[0]
        setattr(self.backbone.get_submodule(block), name, Filmed(layers[name], num_channels))
        self.filmed = f"{block}.{name}"
        self.film = nn.Linear(num_context, 2 * num_channels)
        nn.init.kaiming_uniform_(self.film.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        if self.filmed is None:
            x = x.flatten(1)
            return self.backbone(torch.cat([x, self.context.expand(x.shape[0], -1).to(x.dtype)], 1))
        scale, shift = self.film(self.context).chunk(2)
        return functional_call(self.backbone, {f"{self.filmed}.scale": scale, f"{self.filmed}.shift": shift}, (x,))


class CAVIA(UnrolledAlgorithm):
    """Adapts context parameters alone, an input of a network that all tasks share (Zintgraf et al. 2019).

    An MLP gets them beside its input, a convolutional network by a scale and a shift of one of its blocks, after norm and pooling
    as in the authors' program.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        num_context: context parameters; 5 for sine waves and 100 for mini-ImageNet in the paper.
        film_layer: the norm of the block that they scale and shift, numbered from 0; the third block's in the paper.
    """

    def __init__(
        self,
        inner_lr: float = 1.0,
        inner_steps: int = 2,
        eval_inner_lr: float | None = None,
        num_context: int = 100,
        film_layer: int = 2,
        **kwargs,
    ):
        check_at_least(1, "model", num_context=num_context)
        self.num_context, self.film_layer = num_context, film_layer
        super().__init__(inner_steps=inner_steps, **kwargs)
        self.step_sizes = ConstantStep(inner_lr, eval_inner_lr)

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        def with_context(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            return ContextNetwork(backbone, input_shape, output_size, self.num_context, self.film_layer)

        return super().build_net(with_context)

    def adapted_weights(self) -> Params:
        return {"context": self.net.context}
