"""CAVIA."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from app.algorithms.optimisation_based.unrolled_algorithm import UnrolledAlgorithm
from app.backbones import BackboneCallable
from app.backbones.task_batch_norm import TaskBatchNorm
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from app.inner_loop.step_rules import ConstantStep


class ContextNetwork(nn.Module):
    """A backbone with context parameters, zero at the start of every task.

    They join the input of a network without norms; of one with norms they scale and shift the output of a norm (FiLM, Perez et
    al. 2018), by a linear layer that does neither while they are zero.

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
            self.norm = None
            self.backbone = backbone((torch.Size(input_shape).numel() + num_context,), output_size)
            return
        if not 0 <= film_layer < len(norms):
            raise InputError(f"--model.film_layer is {film_layer}, and the backbone has {len(norms)} norms, numbered from 0")
        self.norm = norms[film_layer]
        num_channels = len(self.backbone.get_submodule(self.norm).bias)
        self.film = nn.Linear(num_context, 2 * num_channels)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            x = x.flatten(1)
            return self.backbone(torch.cat([x, self.context.expand(x.shape[0], -1).to(x.dtype)], 1))
        norm = self.backbone.get_submodule(self.norm)
        scale, shift = self.film(self.context).chunk(2)
        # What a scale and a shift make of a norm's own weight and bias.
        film = {f"{self.norm}.weight": (1 + scale) * norm.weight, f"{self.norm}.bias": (1 + scale) * norm.bias + shift}
        return functional_call(self.backbone, film, (x,))


class CAVIA(UnrolledAlgorithm):
    """Adapts context parameters alone, an input of a network that all tasks share (Zintgraf et al. 2019).

    An MLP gets them beside its input, a convolutional network in one of its norms. The authors' linear layer makes the scale,
    here it makes what the scale has more than 1, so that an unadapted network is an ordinary one.

    Args:
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop in training.
        eval_inner_lr: step size at evaluation, null for `inner_lr`.
        num_context: context parameters; 5 for sine waves and 100 for mini-ImageNet in the paper.
        film_layer: the norm that they scale and shift, numbered from 0; the third block's in the paper.
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
