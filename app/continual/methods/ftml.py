"""Following the meta-leader."""

import time

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call, grad

from app.continual.base.memory import ReservoirMemory
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_at_least
from datamodules.base.stream import Experience, StreamBatch, StreamDataModule

Weights = dict[str, Tensor]


class FTML(ContinualMethod):
    """Follow the meta-leader (Finn et al. 2019): MAML online, on the data of all experiences seen so far.

    At each step, `meta_steps` times: draw one of the experiences seen, and two disjoint batches of what is kept of it; take
    gradient steps on the first, and an outer step against the loss of the second. What is predicted comes from weights adapted
    to the kept samples of an experience: with task ids each sample's own, else the one at hand.

    Args:
        per_experience: samples that are kept of each experience, a uniform sample of it; null for all of them.
        inner_lr: step size of the inner loop.
        inner_steps: gradient steps of the inner loop.
        inner_batch_size: samples of each of the two batches; all that are kept are used for predictions.
        meta_steps: outer steps for each incoming batch.
        first_order: inner gradients are not differentiated.
        optimizer: of the outer steps.
    """

    needs = frozenset({"boundaries"})
    sequential = True

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        per_experience: int | None = None,
        inner_lr: float = 0.1,
        inner_steps: int = 1,
        inner_batch_size: int = 10,
        meta_steps: int = 1,
        first_order: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
    ):
        super().__init__(net, stream, optimizer)
        check_at_least(1, "model.method", inner_steps=inner_steps, inner_batch_size=inner_batch_size, meta_steps=meta_steps)
        check_at_least(2, "model.method", per_experience=per_experience)
        self.inner_lr, self.inner_steps, self.inner_batch_size = inner_lr, inner_steps, inner_batch_size
        self.meta_steps, self.first_order = meta_steps, first_order
        self.memories = nn.ModuleList(
            ReservoirMemory(per_experience or stream.num_train(number), stream) for number in range(len(stream.experiences))
        )
        self._begun = 0
        self._adapted_to: dict[int, Weights] = {}  # within one evaluation

    def begin_experience(self, number: int, experience: Experience) -> None:
        self._begun = number

    def train(self, mode: bool = True) -> "FTML":
        self._adapted_to = {}
        return super().train(mode)

    @property
    def current(self) -> int:
        """The experience at hand: the newest that began, or, after a resume, that samples are kept of."""
        return max([self._begun, *(number for number, memory in enumerate(self.memories) if len(memory))])

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        number = self.current
        self.memories[number].add(batch)
        loss = batch.x.new_zeros(())
        for _ in range(self.meta_steps):
            drawn = int(torch.randint(number + 1, (), generator=generator))
            there = len(self.memories[drawn])
            size = min(self.inner_batch_size, there // 2)
            if not size:  # a single sample cannot be both support and query
                continue
            order = torch.randperm(there, generator=generator)[: 2 * size].to(batch.y.device, non_blocking=True)
            support, query = (self._samples(drawn, rows) for rows in order.split(size))
            loss = self.outer_loss(dict(self.net.named_parameters()), support, query, drawn)
            self.num_gradients += size * (self.inner_steps + 1)
            self.step(loss)
        return loss.detach()

    def outer_loss(self, weights: Weights, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], number: int) -> Tensor:
        """The loss of the query set after adapting to the support set."""
        return self._loss(self.adapt(weights, *support, number), *query, number)

    def adapt(self, weights: Weights, x: Tensor, y: Tensor, number: int) -> Weights:
        """Weights after `inner_steps` gradient steps on samples of an experience."""
        for _ in range(self.inner_steps):
            gradients = grad(self._loss)(weights, x, y, number)
            if self.first_order:
                gradients = {name: gradient.detach() for name, gradient in gradients.items()}
            weights = {name: weight - self.inner_lr * gradients[name] for name, weight in weights.items()}
        return weights

    def _loss(self, weights: Weights, x: Tensor, y: Tensor, number: int) -> Tensor:
        outputs = functional_call(self.net, weights, (x,))
        if self.masked:
            outputs = outputs.masked_fill(~self.masks[number], -torch.inf)
        return self.objective.loss(outputs, y)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            if task is None:
                return functional_call(self.net, self._adapted(self.current), (x,))
            # An experience that was not seen is predicted by the weights adapted to the one at hand.
            seen = torch.tensor([len(memory) > 0 for memory in self.memories], device=x.device)
            own = torch.where(seen[task], task, self.current)
            outputs = x.new_zeros(len(x), self.masks.shape[1])
            for number in own.unique().tolist():
                outputs[own == number] = functional_call(self.net, self._adapted(number), (x[own == number],))
        return outputs

    def _adapted(self, number: int) -> Weights:
        """Weights adapted to all that is kept of an experience, once in an evaluation; what that costs counts as learning."""
        if number in self._adapted_to:
            return self._adapted_to[number]
        started = time.monotonic()
        slow = {name: weight.detach() for name, weight in self.net.named_parameters()}
        rows = torch.arange(len(self.memories[number]), device=self.masks.device)
        adapted = self.adapt(slow, *self._samples(number, rows), number) if len(rows) else slow
        self.num_gradients += len(rows) * self.inner_steps
        self.predict_seconds += time.monotonic() - started
        if not self.training:
            self._adapted_to[number] = adapted
        return adapted

    def _samples(self, number: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.memories[number].at(rows)
        return kept.x, kept.y

    @property
    def memory_bytes(self) -> int:
        return sum(memory.nbytes for memory in self.memories)
