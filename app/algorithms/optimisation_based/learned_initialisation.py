"""What the algorithms share that learn where the inner loop starts."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from app.algorithms.optimisation_based.head_starts import HEAD_STARTS, HeadStartName
from app.algorithms.optimisation_based.unrolled_algorithm import UnrolledAlgorithm
from app.backbones import BackboneCallable
from app.backbones.task_batch_norm import norm_parameters
from app.errors import InputError
from app.inner_loop.params import Params


class LearnedInitialisation(UnrolledAlgorithm):
    """Base of MAML and of those that learn the inner loop's rule as well: the adapted weights are the network's, or a part.

    Args:
        adapted: the weights that the inner loop changes: all (MAML), the head (ANIL, Raghu et al. 2020) or the body (BOIL, Oh et
            al. 2021).
        adapts_norms: whether the inner loop changes the weights and biases of the norms too; in the programs of MAML, MAML++ and
            ALFA it does not, the outer loop alone learns them.
        head_start: where the inner loop starts with the head: learned weights of each output; repeated, one learned vector for
            all classes (UNICORN, Ye and Chao 2022); or prototypes, the means of their features (ProtoMAML, Triantafillou et al.
            2020). With the last two a task may have any number of classes, at test another one than in training.
    """

    @abstractmethod  # the rule of the inner loop, a subclass has to say
    def __init__(
        self,
        adapted: Literal["all", "head", "body"] = "all",
        adapts_norms: bool = True,
        head_start: HeadStartName = "learned",
        **kwargs,
    ):
        self.head_start = HEAD_STARTS[head_start]
        super().__init__(**kwargs)
        if self.any_ways and self.task_type != "classification":
            raise InputError(f"--model.head_start {head_start} is for classes, and the data set is a regression; leave it out")
        if head_start == "repeated" and adapted == "body":
            raise InputError(
                "--model.head_start repeated has the same vector for each class, which --model.adapted body never changes; adapt "
                "all or head, or start at prototypes"
            )
        self.adapted, self.adapts_norms = adapted, adapts_norms

    @property
    def any_ways(self) -> bool:
        return self.head_start.any_ways

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        def started(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            net = backbone(input_shape, self.head_start.outputs or output_size)
            self.head_start.settle(net.head)
            return net

        return super().build_net(started)

    def adapted_weights(self) -> Params:
        # Of a head, buffers are what is adapted and not learned.
        weights = dict(self.net.named_parameters()) | {f"head.{name}": own for name, own in self.net.head.named_buffers()}
        if not self.adapts_norms:
            for name in norm_parameters(self.net):
                del weights[name]
        if self.adapted == "all":
            return weights
        return {name: weight for name, weight in weights.items() if name.startswith("head.") == (self.adapted == "head")}

    def starting_weights(self, params: Params, support_x: Tensor, support_y: Tensor) -> Params:
        precision = self.inner_autocast()

        def features() -> Tensor:
            with precision:
                return functional_call(self.net.body, self.module_params("net.body", params), (support_x,))

        with torch.autocast(support_x.device.type, enabled=False):
            head = self.head_start.weights(self.module_params("net.head", params), self.ways, features, support_y)
        started = {f"head.{name}": weight for name, weight in head.items()}
        return super().starting_weights(params, support_x, support_y) | started

    @property
    def body_is_fixed(self) -> bool:
        return self.adapted == "head"
