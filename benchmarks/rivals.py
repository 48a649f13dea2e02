"""One meta-gradient of MAML as other libraries write it: a loop over tasks, gradients added up in the network's weights."""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from app.episode import Episode

MetaGradient = Callable[[nn.Module, Episode, int, float, bool], None]


class PlainConv4(nn.Module):
    """Conv4 of ordinary layers, with ordinary batch normalisation, in the order of parameters of app.backbones.Conv4."""

    def __init__(self, channels: int, output_size: int, width: int, max_pool: bool, num_features: int):
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(4):
            fan_in, stride = width if block else channels, 1 if max_pool else 2
            layers += [nn.Conv2d(fan_in, width, 3, stride=stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width, track_running_stats=False), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if max_pool else []
        self.body, self.max_pool = nn.Sequential(*layers), max_pool
        self.head = nn.Linear(num_features, output_size)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(features.flatten(1) if self.max_pool else features.mean((2, 3)))


def learn2learn(net: nn.Module, batch: Episode, steps: int, lr: float, first_order: bool) -> None:
    """As its examples/vision/maml_omniglot.py."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from learn2learn.algorithms import MAML

    maml = MAML(net, lr=lr, first_order=first_order)
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        learner = maml.clone()
        for _ in range(steps):
            learner.adapt(F.cross_entropy(learner(support_x), support_y))
        (F.cross_entropy(learner(query_x), query_y) / len(batch.query_x)).backward()


def torchopt(net: nn.Module, batch: Episode, steps: int, lr: float, first_order: bool) -> None:
    """As its examples/few-shot/maml_omniglot.py; it has no first order."""
    from torchopt import MetaSGD, extract_state_dict, recover_state_dict

    if first_order:
        raise NotImplementedError
    optimizer = MetaSGD(net, lr=lr)
    start = extract_state_dict(net, by="reference"), extract_state_dict(optimizer, by="reference")
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        for _ in range(steps):
            optimizer.step(F.cross_entropy(net(support_x), support_y))
        loss = F.cross_entropy(net(query_x), query_y) / len(batch.query_x)
        recover_state_dict(net, start[0])
        recover_state_dict(optimizer, start[1])
        loss.backward()


def higher(net: nn.Module, batch: Episode, steps: int, lr: float, first_order: bool) -> None:
    """As its examples/maml-omniglot.py."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from higher import innerloop_ctx

    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        with innerloop_ctx(net, optimizer, copy_initial_weights=False, track_higher_grads=not first_order) as (learner, inner):
            for _ in range(steps):
                inner.step(F.cross_entropy(learner(support_x), support_y))
            loss = F.cross_entropy(learner(query_x), query_y) / len(batch.query_x)
            if first_order:  # it then knows only the adapted weights
                weights = list(learner.parameters())
                for start, gradient in zip(net.parameters(), torch.autograd.grad(loss, weights), strict=True):
                    start.grad = gradient if start.grad is None else start.grad + gradient
            else:
                loss.backward()


def loop(net: nn.Module, batch: Episode, steps: int, lr: float, first_order: bool) -> None:
    """torch alone: autograd.grad and functional_call."""
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        weights = dict(net.named_parameters())
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(net, weights, (support_x,)), support_y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order)
            weights = {name: weight - lr * g for (name, weight), g in zip(weights.items(), gradients, strict=True)}
        (F.cross_entropy(functional_call(net, weights, (query_x,)), query_y) / len(batch.query_x)).backward()


RIVALS: dict[str, MetaGradient] = {"learn2learn": learn2learn, "TorchOpt": torchopt, "higher": higher, "loop": loop}
