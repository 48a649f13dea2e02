"""Looking ahead of gradient steps within one stream."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from app.backbones.mlp import MLP
from app.continual.base import mlp_descent
from app.continual.base.differentiation import descend_by, is_recording, unrecorded
from app.continual.base.memory import ReservoirMemory
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws, as_kept, outside, permutation, slopes
from app.errors import InputError, check_above_zero
from app.torch_internals import add_to_each_
from datamodules.base.stream import StreamBatch, StreamDataModule


class LookAheadMethod(ContinualMethod):
    """Base of La-MAML, C-MAML and Sync (Gupta, Yadav, Paull 2020): meta-learning in the one stream.

    At each glance fast weights take a gradient step on each incoming sample, one after the other, with non-negative step sizes,
    relu(rates). After each step they are scored on the incoming batch and samples of the memory; the mean of these losses is
    differentiated in the slow weights and in the step sizes. As in the authors' program, a sample of the memory may be drawn
    more than once, and the incoming batch is in the memory from the second glance on.

    With the first-order gradient, an MLP and classes this is done in closed form, else by autograd: the same numbers to rounding.

    Args:
        memory: samples that are kept.
        replay: samples of the memory beside each incoming batch.
        glances: updates of the slow weights on each incoming batch.
        alpha: initial step sizes of the fast weights.
        second_order: whether the inner gradients are differentiated as well; the published MNIST rows are first-order.
        clip: largest norm of the gradient in the weights, and of that in the step sizes; null for no limit.
        closed_form: null for wherever it applies; false for autograd.
        kwargs: of ContinualMethod.
    """

    sequential = True
    learns_rates = True

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        memory: int = 200,
        replay: int = 10,
        glances: int = 5,
        alpha: float = 0.1,
        second_order: bool = False,
        clip: float | None = 2.0,
        closed_form: bool | None = None,
        **kwargs,
    ):
        super().__init__(net, stream, glances=glances, **kwargs)
        check_above_zero("model.method", replay=replay, alpha=alpha, clip=clip)
        fits = isinstance(net, MLP) and not second_order and len(list(net.parameters())) >= 4 and self.objective.has_classes
        if closed_form and not fits:
            raise InputError(
                "--model.method.closed_form true needs --model.backbone MLP with a hidden layer, second_order false, and classes"
            )
        self.closed_form = fits if closed_form is None else closed_form
        self.memory, self.replay = ReservoirMemory(memory, stream), replay
        self.second_order, self.clip = second_order, clip
        self.alpha = alpha
        self.rates = nn.ParameterList(torch.full_like(parameter, alpha) for parameter in net.parameters())

    def starting_state(self) -> dict[str, Tensor]:
        return {f"rates.{name}": torch.ones_like(rate) * self.alpha for name, rate in self.rates.named_parameters()}

    def take_rate(self, rate: float) -> None:
        self.alpha = rate
        with torch.no_grad():
            for own in self.rates:
                own.fill_(rate)

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        for glance in range(self.glances):
            order = permutation(len(batch.y), generator, batch.y.device)
            old = self.memory.draw_with_repetition(self.replay, generator)
            if glance == 0:  # at the next ones the batch is part of the memory
                self.memory.add(batch)
            new = zip((batch.x, batch.y, batch.task), (old.x, old.y, old.task), strict=True)
            x, y, task = (torch.cat([arriving[order], remembered]) for arriving, remembered in new)
            loss, weights, rates = self.meta_gradient(x, y, task, len(order))
            self.num_gradients += len(order) * (1 + len(y))
            self.update(self.clipped(weights), self.clipped(rates) if self.learns_rates else [])
        return loss

    def update(self, weights: list[Tensor], rates: list[Tensor]) -> None:
        """Updates slow weights and step sizes with their gradients."""
        raise NotImplementedError

    def meta_gradient(self, x: Tensor, y: Tensor, task: Tensor, num_steps: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The mean of the losses of all rows after each step on one of the first rows, and its gradients.

        Args:
            x: inputs, the incoming ones first.
            y: labels.
            task: number of the experience of each row.
            num_steps: incoming samples.
        """
        if self.closed_form:
            layers = mlp_descent.layers_of(self.net)
            targets = functional.one_hot(y, self.masks.shape[1]).to(x.dtype)
            mask = self.masks[task] if self.masked else None
            with unrecorded():
                values = [rate.relu() for rate in self.rates]
                rates = list(zip(values[::2], values[1::2], strict=True))
                return mlp_descent.look_ahead(layers, rates, x.flatten(1), targets, num_steps, mask, self.learns_rates)
        names = [name for name, _ in self.net.named_parameters()]
        slow = dict(self.net.named_parameters())
        sizes = [rate.clone() for rate in self.rates]  # on which the slow weights do not depend, as they may on the rates

        def loss(weights: dict[str, Tensor], rows: slice) -> Tensor:
            outputs = functional_call(self.net, weights, (x[rows],))
            if self.masked:
                outputs = outputs.masked_fill(~self.masks[task[rows]], -torch.inf)
            return self.objective.loss(outputs, y[rows])

        fast, total, moved = slow, x.new_zeros(()), [torch.zeros_like(rate) for rate in self.rates]
        weights, rates = ([torch.zeros_like(rate) for rate in self.rates] for _ in range(2))
        for number in range(num_steps):
            inner = loss(fast, slice(number, number + 1))
            gradients = slopes(inner, list(fast.values()), create_graph=self.second_order or is_recording())
            steps = zip(names, gradients, sizes, strict=True)
            fast = {name: fast[name] - rate.relu() * gradient for name, gradient, rate in steps}
            after = loss(fast, slice(None)) / num_steps
            total = total + (after if self.second_order else after.detach())
            if not self.second_order:  # what the steps followed is a constant: each moves all networks after it
                own = slopes(after, list(fast.values()), materialize_grads=True, create_graph=is_recording())
                with unrecorded():
                    moved = [one + gradient for one, gradient in zip(moved, gradients, strict=True)]
                    weights = [one + other for one, other in zip(weights, own, strict=True)]
                    rates = [one - m * g * (rate > 0) for one, m, g, rate in zip(rates, moved, own, sizes, strict=True)]
        if self.second_order:
            wanted = [*slow.values(), *(sizes if self.learns_rates else [])]
            gradients = slopes(total, wanted, materialize_grads=True, create_graph=is_recording())
            weights, rates = gradients[: len(names)], gradients[len(names) :]
        return total.detach(), weights, rates

    def clipped(self, gradients: list[Tensor]) -> list[Tensor]:
        """The gradients, shortened where their common norm is above `clip`."""
        if self.clip is None:
            return gradients
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        shortened = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        return [gradient * shortened for gradient in gradients]

    def step_rates(self, gradients: list[Tensor], lr: float | Tensor) -> None:
        """A gradient step of the step sizes."""
        if self.step_sizes is not None:
            descend_by(self.rates, gradients, {name: lr for name, _ in self.rates.named_parameters()})
            return
        with torch.no_grad(), outside():
            add_to_each_([as_kept(rate) for rate in self.rates], [as_kept(gradient) for gradient in gradients], alpha=-lr)

    @property
    def memory_bytes(self) -> int:
        return self.memory.nbytes + self.learns_rates * sum(rate.nbytes for rate in self.rates)
