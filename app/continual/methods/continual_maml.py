"""MAML on a stream without boundaries."""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from app.continual.base.method import ContinualMethod
from app.errors import check_above_zero
from datamodules.base.stream import StreamBatch, StreamDataModule, as_inputs

Weights = dict[str, Tensor]


class ContinualMAML(ContinualMethod):
    """Continual-MAML of OSAKA (Caccia et al. 2020): fast weights for the task at hand, slow ones for what tasks have in common.

    L is the loss of the fast weights on a new batch, before its labels are used. Where weights freshly adapted to this batch are
    better by more than `gamma`, the task has changed: the slow weights are left alone, and the fast ones start again. Else L is
    differentiated in the slow weights, from which the fast ones were adapted to the batch before (MAML with that batch as
    support and the new one as query), and the optimiser takes a step; then the fast weights adapt to the new batch.

    Args:
        alpha: initial step sizes of the fast weights.
        inner_steps: gradient steps of the fast weights on a batch.
        gamma: by how much the loss must be worse than after adapting afresh for the task to count as changed.
        modulation: lambda: the outer gradient is multiplied by 1 - exp(-lambda L), so that what is known changes less; null for
            the plain gradient.
        prolonged: within a task the fast weights go on from those of the batch before, instead of from the slow ones; their
            gradient in the slow weights is then first-order.
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
        self.prolonged, self.first_order, self.learns_rates = prolonged, first_order or prolonged, learns_rates
        self.names = [name for name, _ in net.named_parameters()]
        self.rates = nn.ParameterList(torch.tensor(alpha) for _ in self.names)
        # The fast weights, and the batch that they were adapted to from the slow ones of that time.
        for number, (_, weight) in enumerate(net.named_parameters()):
            self.register_buffer(f"fast_{number}", weight.detach().clone())
        self.register_buffer("support_images", torch.zeros(stream.batch_size, *stream.input_shape, dtype=torch.uint8))
        for kept in ("support_y", "support_task"):
            self.register_buffer(kept, torch.zeros(stream.batch_size, dtype=torch.int64))
        self.register_buffer("num_support", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_changes", torch.zeros((), dtype=torch.int64))
        self._count: int | None = None  # num_support on the host

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self._count = None

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
        """Mean cross-entropy."""
        outputs = functional_call(self.net, weights, (x,))
        return functional.cross_entropy(outputs.masked_fill(~self.masks[task], -torch.inf) if self.masked else outputs, y)

    def adapt(self, weights: Weights, x: Tensor, y: Tensor, task: Tensor, first_order: bool = True) -> Weights:
        """Weights after `inner_steps` gradient steps; differentiable in weights and step sizes."""
        for _ in range(self.inner_steps):
            start = {name: weight.detach().requires_grad_() for name, weight in weights.items()} if first_order else weights
            gradients = torch.autograd.grad(self.loss(start, x, y, task), list(start.values()), create_graph=not first_order)
            steps = zip(weights.items(), self.rates, gradients, strict=True)
            weights = {name: weight - rate * gradient for (name, weight), rate, gradient in steps}
            self.num_gradients += len(y)
        return weights

    def observe(self, batch: StreamBatch, generator: torch.Generator) -> Tensor:
        x, y, task = batch.x, batch.y, batch.task
        count = int(self.num_support) if self._count is None else self._count
        afresh = self._detached(self.adapt(self.slow, x, y, task))
        if not count:
            self._keep(batch, afresh)
            return self.loss(afresh, x, y, task)
        loss, gradients = self.outer_gradient(x, y, task, count)
        with torch.no_grad():
            # The host waits for the device once a step: optimisers count their steps on the host, so whether one is taken cannot
            # be decided on the device.
            changed = bool(self.loss(afresh, x, y, task) + self.gamma <= loss)
        self.num_changes += changed
        if not changed:
            scale = 1.0 if self.modulation is None else 1 - torch.exp(-self.modulation * loss)
            self.descend([scale * gradient for gradient in gradients])
            start = self.fast if self.prolonged else self.slow
            afresh = self._detached(self.adapt(start, x, y, task))
        self._keep(batch, afresh)
        return loss

    def outer_gradient(self, x: Tensor, y: Tensor, task: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
        """Loss of the fast weights on a new batch, and its gradient in what the optimiser trains."""
        support, wanted = as_inputs(self.support_images[:count]), self.trained
        fast = self.adapt(self.slow, support, self.support_y[:count], self.support_task[:count], self.first_order)
        if self.prolonged:  # the values of the fast weights, with the derivative of a single adaptation
            fast = {name: weight + (self.fast[name] - weight).detach() for name, weight in fast.items()}
        loss = self.loss(fast, x, y, task)
        self.num_gradients += len(y)
        return loss.detach(), list(torch.autograd.grad(loss, wanted, materialize_grads=True))

    def _detached(self, weights: Weights) -> Weights:
        return {name: weight.detach() for name, weight in weights.items()}

    @torch.no_grad()
    def _keep(self, batch: StreamBatch, fast: Weights) -> None:
        torch._foreach_copy_(list(self.fast.values()), list(fast.values()))
        count = len(batch.y)
        self.support_images[:count], self.support_y[:count] = batch.images, batch.y
        self.support_task[:count] = batch.task
        self.num_support.fill_(count)
        self._count = count

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return functional_call(self.net, self.fast, (x,))

    @property
    def memory_bytes(self) -> int:
        kept = [*self.fast.values(), self.support_images, self.support_y, *(self.rates if self.learns_rates else [])]
        return sum(tensor.nbytes for tensor in kept)
