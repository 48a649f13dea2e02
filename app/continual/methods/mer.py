"""Meta-experience replay."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.backbones.mlp import MLP
from app.continual.base import mlp_descent
from app.continual.base.memory import ReservoirMemory
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws, as_kept, outside
from app.errors import check_above_zero
from app.torch_internals import copy_each_, lerp_each_
from datamodules.base.stream import StreamBatch, StreamDataModule


class MER(ContinualMethod):
    """Meta-experience replay, algorithm 1 (Riemer et al. 2019): Reptile within and across batches of replayed samples.

    For each incoming sample, `num_batches` times: gradient descent on it and on samples of the memory, one after the other, of
    which the share `beta` is kept; of all of this the share `gamma`. With an MLP and classes the descent is in closed form.

    Args:
        memory: samples that are kept.
        replay: samples of the memory in each batch.
        num_batches: batches for each incoming sample.
        lr: step size of the descent.
        beta: step of Reptile within a batch.
        gamma: step of Reptile across the batches.
    """

    sequential = True
    goes_abreast = True

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        memory: int = 200,
        replay: int = 10,
        num_batches: int = 5,
        lr: float = 0.1,
        beta: float = 0.01,
        gamma: float = 1.0,
    ):
        check_above_zero("model.method", replay=replay, num_batches=num_batches, lr=lr, beta=beta, gamma=gamma)
        super().__init__(net, stream, lambda params: torch.optim.SGD(params, lr=lr))
        self.memory = ReservoirMemory(memory, stream)
        self.replay, self.num_batches, self.lr, self.beta, self.gamma = replay, num_batches, lr, beta, gamma
        self.closed_form = isinstance(net, MLP) and len(list(net.parameters())) >= 4 and self.objective.has_classes

    def take_rate(self, rate: float) -> None:
        super().take_rate(rate)
        self.lr = rate

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        total = batch.x.new_zeros(())
        weights = list(self.net.parameters())
        for row in range(len(batch.y)):
            sample = StreamBatch(*(part[row : row + 1] for part in batch))
            before = [weight.detach().clone() for weight in weights]
            for _ in range(self.num_batches):
                old = self.memory.draw(self.replay, generator)
                new = zip((sample.x, sample.y, sample.task), (old.x, old.y, old.task), strict=True)
                x, y, task = (torch.cat(pair) for pair in new)
                start = [weight.detach().clone() for weight in weights]
                with torch.no_grad():
                    total = total + self.objective.loss(self.logits(sample.x, sample.task), sample.y)
                self._descend_on(x, y, task)
                self._return(start, self.beta)
                self.num_gradients += len(y)
            self._return(before, self.gamma)
            self.memory.add(sample)
        return total / (len(batch.y) * self.num_batches)

    def _descend_on(self, x: Tensor, y: Tensor, task: Tensor) -> None:
        """A gradient step on each sample."""
        if not self.closed_form:
            for row in range(len(y)):
                one = slice(row, row + 1)
                self.step(self.objective.loss(self.logits(x[one], task[one]), y[one]))
            return
        rows, layers = x.flatten(1), mlp_descent.layers_of(self.net)
        targets = functional.one_hot(y, self.masks.shape[1]).to(rows.dtype)
        with torch.no_grad():
            products = (rows @ rows.T)[..., None]
            descent = mlp_descent.descend(layers, self.lr, rows, targets, self.masks[task] if self.masked else None, products)
            after = [as_kept(part) for layer in mlp_descent.weights_after(layers, self.lr, rows, descent) for part in layer]
            weights = [as_kept(weight) for weight in self.net.parameters()]
            with outside():
                copy_each_(weights, after)

    @torch.no_grad()
    def _return(self, start: list[Tensor], share: float) -> None:
        """Keeps this share of the way from the start."""
        start, weights = ([as_kept(weight) for weight in part] for part in (start, self.net.parameters()))
        with outside():
            lerp_each_(start, weights, share)
            copy_each_(weights, start)

    @property
    def memory_bytes(self) -> int:
        return self.memory.nbytes
