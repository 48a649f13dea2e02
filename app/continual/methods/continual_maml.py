"""MAML on a stream without boundaries."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call

from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_above_zero
from app.torch_internals import copy_each_
from datamodules.base.inputs import as_inputs
from datamodules.base.stream import StreamBatch, StreamDataModule

Weights = dict[str, Tensor]
Rows = tuple[Tensor, Tensor, Tensor]  # inputs, labels, numbers of the experiences


@dataclass
class _OnHost:
    """What the next step depends on, so that it does not wait for the device.

    Attributes:
        rows: samples of each gathered batch.
        has_begun: whether there are fast weights.
        has_changed: whether the batch before began a task.
    """

    rows: list[int]
    has_begun: bool
    has_changed: bool


class ContinualMAML(ContinualMethod):
    """Continual-MAML of OSAKA (Caccia et al. 2020): fast weights for the task at hand, slow ones for what tasks have in common.

    L is the loss of the fast weights on a new batch, before its labels are used. Where the weights adapted to this batch are
    better by more than `gamma`, the task has changed.

    Without the prolonged adaptation the fast weights are adapted afresh to each batch. Where the task has not changed, L is
    differentiated in the slow weights, from which the fast ones were adapted to the batch before (MAML with that batch as
    support and the new one as query), and the optimiser takes a step.

    With it the fast weights go on from batch to batch, and start afresh after a change. The batches of a task are gathered; at a
    change, or when there are more than twice as many as a batch has samples, the optimiser takes a step of MAML with the first
    half of them as supports and the second half as queries, pair by pair, and the gathering begins anew. A batch on which it
    takes the step is not gathered, and a single one is its own query, as in the authors' program.

    Args:
        alpha: initial step sizes of the fast weights.
        inner_steps: gradient steps of the fast weights on a batch.
        gamma: by how much the loss must be worse than after adapting afresh for the task to count as changed.
        modulation: lambda: the outer gradient is multiplied by 1 - exp(-lambda L) with the loss L that it is of, so that what is
            known changes less; null for the plain gradient.
        prolonged: within a task the fast weights go on from those of the batch before, and the slow ones wait for its end.
        first_order: inner gradients are not differentiated.
        learns_rates: whether the step sizes, one for each tensor, are learned by the optimiser as well.
        optimizer: of the slow weights and the step sizes.
    """

    sequential = True

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        alpha: float = 0.1,
        inner_steps: int = 1,
        gamma: float = 1.25,
        modulation: float | None = 0.25,
        prolonged: bool = True,
        first_order: bool = False,
        learns_rates: bool = True,
        optimizer: OptimizerCallable = torch.optim.Adam,
    ):
        super().__init__(net, stream, optimizer)
        check_above_zero("model.method", alpha=alpha, inner_steps=inner_steps, modulation=modulation)
        self.inner_steps, self.gamma, self.modulation = inner_steps, gamma, modulation
        self.prolonged, self.first_order, self.learns_rates = prolonged, first_order, learns_rates
        self.names = [name for name, _ in net.named_parameters()]
        self.rates = nn.ParameterList(torch.tensor(alpha) for _ in self.names)
        # The fast weights, and the batches that the next step of the slow ones is made of.
        for number, (_, weight) in enumerate(net.named_parameters()):
            self.register_buffer(f"fast_{number}", weight.detach().clone())
        capacity = 2 * stream.batch_size + 1 if prolonged else 1
        images = torch.zeros(capacity, stream.batch_size, *stream.input_shape, dtype=stream.kept_dtype)
        self.register_buffer("gathered_images", images)
        targets = torch.zeros(capacity, stream.batch_size, *stream.target_shape, dtype=stream.target_dtype)
        self.register_buffer("gathered_y", targets)
        self.register_buffer("gathered_task", torch.zeros(capacity, stream.batch_size, dtype=torch.int64))
        self.register_buffer("gathered_rows", torch.zeros(capacity, dtype=torch.int64))  # of each batch, 0 where there is none
        self.register_buffer("has_begun", torch.zeros((), dtype=torch.bool))
        self.register_buffer("has_changed", torch.zeros((), dtype=torch.bool))
        self.register_buffer("num_changes", torch.zeros((), dtype=torch.int64))
        self._host: _OnHost | None = None
        self.register_load_state_dict_post_hook(type(self).forget_host)

    def forget_host(self, *_: Any) -> None:
        """Reads what is known on the host from the device again, after a checkpoint was loaded."""
        self._host = None

    def make_optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer([*self.net.parameters(), *(self.rates if self.learns_rates else [])])

    @property
    def slow(self) -> Weights:
        """The slow weights."""
        return dict(self.net.named_parameters())

    @property
    def fast(self) -> Weights:
        """The fast weights."""
        return {name: getattr(self, f"fast_{number}") for number, name in enumerate(self.names)}

    def loss(self, weights: Weights, x: Tensor, y: Tensor, task: Tensor) -> Tensor:
        """The mean over a batch."""
        outputs = functional_call(self.net, weights, (x,))
        return self.objective.loss(outputs.masked_fill(~self.masks[task], -torch.inf) if self.masked else outputs, y)

    def adapt(self, weights: Weights, x: Tensor, y: Tensor, task: Tensor, first_order: bool = True) -> Weights:
        """Weights after `inner_steps` gradient steps; differentiable in weights and step sizes."""
        for _ in range(self.inner_steps):
            start = {name: weight.detach().requires_grad_() for name, weight in weights.items()} if first_order else weights
            gradients = torch.autograd.grad(self.loss(start, x, y, task), list(start.values()), create_graph=not first_order)
            steps = zip(weights.items(), self.rates, gradients, strict=True)
            weights = {name: weight - rate * gradient for (name, weight), rate, gradient in steps}
            self.num_gradients += len(y)
        return weights

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        if not self.host.has_begun:
            fast = self._detached(self.adapt(self.slow, batch.x, batch.y, batch.task))
            self.has_begun.fill_(True)
            self.host.has_begun = True
            self._keep(fast)
            self._gather(batch)
            return self.loss(fast, batch.x, batch.y, batch.task)
        return self._observe_prolonged(batch) if self.prolonged else self._observe(batch)

    def _observe(self, batch: StreamBatch) -> Tensor:
        x, y, task = batch.x, batch.y, batch.task
        afresh = self._detached(self.adapt(self.slow, x, y, task))
        loss, gradients = self.outer_gradient([(self._gathered(0), (x, y, task))])
        self.num_changes += (changed := self._is_better(afresh, batch, loss))
        if not changed:
            self._step(loss, gradients)
            afresh = self._detached(self.adapt(self.slow, x, y, task))
        self._keep(afresh)
        self._forget()
        self._gather(batch)
        return loss

    def _observe_prolonged(self, batch: StreamBatch) -> Tensor:
        x, y, task = batch.x, batch.y, batch.task
        with torch.no_grad():
            loss = self.loss(self.fast, x, y, task)
        fast = self._detached(self.adapt(self.slow if self.host.has_changed else self.fast, x, y, task))
        self.num_changes += (changed := self._is_better(fast, batch, loss))
        self._keep(fast)
        held = len(self.host.rows)
        if (changed and held) or held > 2 * self.stream.batch_size:
            self._step(*self.outer_gradient(self._halves()))
            self._forget()
        else:
            self._gather(batch)
        self.has_changed.fill_(changed)
        self.host.has_changed = changed
        return loss

    def _is_better(self, adapted: Weights, batch: StreamBatch, loss: Tensor) -> bool:
        """Whether weights that have seen a batch are so much better that it is of another task."""
        with torch.no_grad():
            # The host waits for the device once a step: optimisers count their steps on the host, so whether one is taken cannot
            # be decided on the device.
            return bool(self.loss(adapted, batch.x, batch.y, batch.task) + self.gamma <= loss)

    def outer_gradient(self, pairs: list[tuple[Rows, Rows]]) -> tuple[Tensor, list[Tensor]]:
        """MAML's loss, the mean over pairs of support and query, and its gradients in what the optimiser trains."""
        losses = []
        for support, query in pairs:
            losses.append(self.loss(self.adapt(self.slow, *support, self.first_order), *query))
            self.num_gradients += len(query[1])
        loss = torch.stack(losses).mean()
        return loss.detach(), list(torch.autograd.grad(loss, self.trained, materialize_grads=True))

    def _step(self, loss: Tensor, gradients: list[Tensor]) -> None:
        scale = 1.0 if self.modulation is None else 1 - torch.exp(-self.modulation * loss)
        self.descend([scale * gradient for gradient in gradients])

    def _detached(self, weights: Weights) -> Weights:
        return {name: weight.detach() for name, weight in weights.items()}

    @torch.no_grad()
    def _keep(self, fast: Weights) -> None:
        copy_each_(list(self.fast.values()), list(fast.values()))

    # The batches that the slow weights wait for

    @property
    def host(self) -> _OnHost:
        """The counts and flags of the buffers, read from the device once."""
        if self._host is None:
            rows = [rows for rows in self.gathered_rows.tolist() if rows]
            self._host = _OnHost(rows, bool(self.has_begun), bool(self.has_changed))
        return self._host

    @torch.no_grad()
    def _gather(self, batch: StreamBatch) -> None:
        place, rows = len(self.host.rows), len(batch.y)
        self.gathered_images[place, :rows], self.gathered_y[place, :rows] = batch.images, batch.y
        self.gathered_task[place, :rows] = batch.task
        self.gathered_rows[place] = rows
        self.host.rows.append(rows)

    def _forget(self) -> None:
        self.gathered_rows.zero_()
        self.host.rows = []

    def _gathered(self, place: int) -> Rows:
        rows = self.host.rows[place]
        images = as_inputs(self.gathered_images[place, :rows]).to(self.fast_0.dtype)
        return images, self.gathered_y[place, :rows], self.gathered_task[place, :rows]

    def _halves(self) -> list[tuple[Rows, Rows]]:
        """The first half of the gathered batches as supports, each with one of the second half as query."""
        held = len(self.host.rows)
        if held == 1:
            return [(self._gathered(0), self._gathered(0))]
        half = (held + 1) // 2
        return [(self._gathered(place), self._gathered(half + place)) for place in range(held - half)]

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return functional_call(self.net, self.fast, (x,))

    @property
    def memory_bytes(self) -> int:
        kept = [*self.fast.values(), self.gathered_images, self.gathered_y, *(self.rates if self.learns_rates else [])]
        return sum(tensor.nbytes for tensor in kept)
