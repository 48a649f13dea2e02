"""Modules that are called with parameters that are handed in."""

from torch import Tensor, nn
from torch.func import functional_call

from app.inner_loop.params import Params


class CallsModules(nn.Module):
    """Base of what computes with given parameters, and not with its own.

    Attributes:
        net: the backbone.
    """

    net: nn.Module

    def network(self, params: Params, x: Tensor) -> Tensor:
        """The backbone with these parameters, named as in `self.net`."""
        return functional_call(self.net, params, (x,))

    def net_params(self, params: Params) -> Params:
        """The backbone's share of the meta-parameters, named as in `self.net`."""
        return self.module_params("net", params)

    def module_params(self, module: str, params: Params) -> Params:
        """The share that a module of the algorithm has in the meta-parameters, named as in the module."""
        prefix = f"{module}."
        return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}

    def call_module(self, module: str, params: Params, *inputs: Tensor) -> Tensor:
        """A module of the algorithm, by its name, with its share of these meta-parameters."""
        return functional_call(self.get_submodule(module), self.module_params(module, params), inputs)
