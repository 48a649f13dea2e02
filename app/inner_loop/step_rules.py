"""What a step of the inner loop makes of the weights: rules with parameters that the outer loop learns, or none."""

from math import prod

import torch
from torch import Tensor, nn

from app.errors import check_finite
from app.inner_loop.params import Params


class StepRule(nn.ParameterList):
    """Base of the rules; the learned tensors belong to the adapted weights in their order.

    Args:
        weights: that the inner loop adapts.

    Attributes:
        is_curved: the derivative of a step, for its direction or for what is learned, depends on the direction.
    """

    is_curved = True
    __call__ = nn.Module.__call__  # a list refuses to be called

    def __init__(self, weights: Params):
        super().__init__()
        self.names = list(weights)

    def forward(self, step: int, weights: Params, direction: Params) -> Params:
        """The weights after a step.

        Args:
            step: its number, from 0.
            weights: before the step.
            direction: in which the support loss rises, by the weights' names.
        """
        moves = self.moves(step, direction)
        return {name: weight - moves[name] for name, weight in weights.items()}

    def moves(self, step: int, direction: Params) -> Params:
        """What is taken away from each weight."""
        raise NotImplementedError

    def learned_sizes(self) -> Params:
        """Learned step sizes by the names of the weights, each of any shape; none where the rule is not made of such."""
        return {}


class ConstantStep(StepRule):
    """One step size for all weights, in evaluation perhaps another (Finn et al. 2017).

    Args:
        lr: step size in training.
        eval_lr: step size in evaluation, null for `lr`.
    """

    is_curved = False

    def __init__(self, lr: float, eval_lr: float | None = None):
        super().__init__({})
        check_finite("model", inner_lr=lr, eval_inner_lr=eval_lr)
        self.lr, self.eval_lr = lr, lr if eval_lr is None else eval_lr

    def moves(self, step: int, direction: Params) -> Params:
        lr = self.lr if self.training else self.eval_lr
        return {name: lr * slope for name, slope in direction.items()}


class WeightwiseStep(StepRule):
    """A step size for every single weight (Meta-SGD, Li et al. 2017).

    Args:
        weights: that the inner loop adapts.
        low: the step sizes are drawn uniformly between this
        high: and this.
    """

    def __init__(self, weights: Params, low: float, high: float):
        super().__init__(weights)
        self.extend(torch.empty_like(weight).uniform_(low, high) for weight in weights.values())

    def moves(self, step: int, direction: Params) -> Params:
        return {name: sizes * direction[name] for name, sizes in zip(self.names, self, strict=True)}

    def learned_sizes(self) -> Params:
        return dict(zip(self.names, self, strict=True))


class LayerwiseStep(StepRule):
    """A step size for every weight tensor and inner step (MAML++, Antoniou et al. 2019); further steps take the last one's.

    Args:
        weights: that the inner loop adapts.
        lr: all step sizes at the start.
        num_steps: that have a size of their own.
    """

    def __init__(self, weights: Params, lr: float, num_steps: int):
        super().__init__(weights)
        self.extend(weight.new_full((num_steps,), lr) for weight in weights.values())

    def moves(self, step: int, direction: Params) -> Params:
        return {name: sizes[min(step, len(sizes) - 1)] * direction[name] for name, sizes in zip(self.names, self, strict=True)}

    def learned_sizes(self) -> Params:
        return dict(zip(self.names, self, strict=True))


class CurvatureStep(StepRule):
    """Base of the rules that mix the entries of a weight's gradient by a small matrix for each of its axes.

    Of a convolution the axes are output channels, input channels and the positions of the kernel.

    Args:
        weights: that the inner loop adapts.
        lr: step size.
    """

    def __init__(self, weights: Params, lr: float):
        super().__init__(weights)
        self.lr = lr

    @staticmethod
    def axes(shape: torch.Size) -> tuple[int, ...]:
        """Sizes of a gradient's axes, those of the kernel as one."""
        return (*shape[:2], prod(shape[2:])) if len(shape) > 2 else tuple(shape)

    @staticmethod
    def mixed(direction: Tensor, matrices: list[Tensor]) -> Tensor:
        """The direction with each of its axes multiplied by its matrix."""
        mixed = direction.reshape(CurvatureStep.axes(direction.shape))
        for axis, matrix in enumerate(matrices):
            if matrix.numel() == 1:  # an axis of one entry, or of any number of classes that are treated alike
                mixed = matrix.view(()) * mixed
            else:
                mixed = torch.tensordot(matrix, mixed, dims=([1], [axis])).movedim(0, axis)
        return mixed.reshape(direction.shape)


class MetaCurvatureStep(CurvatureStep):
    """A matrix for every axis, a number for every bias and scale (Meta-Curvature, Park and Oliva 2019, section 3.2).

    Their Kronecker product multiplies the gradient; at the start it is the identity.
    """

    def __init__(self, weights: Params, lr: float):
        super().__init__(weights, lr)
        for weight in weights.values():
            if weight.ndim < 2:
                self.append(torch.ones_like(weight))
            else:
                self.extend(torch.eye(size).to(weight) for size in self.axes(weight.shape))

    def moves(self, step: int, direction: Params) -> Params:
        learned, moves = iter(self), {}
        for name in self.names:
            slope = direction[name]
            if slope.ndim < 2:
                moves[name] = self.lr * next(learned) * slope
            else:
                moves[name] = self.lr * self.mixed(slope, [next(learned) for _ in self.axes(slope.shape)])
        return moves


class OutputCurvatureStep(CurvatureStep):
    """A matrix T for the outputs of every layer, whose gradient becomes T T' times itself (T-nets, Lee and Choi 2018).

    It is what gradient descent on W does to the layer T W, and so never climbs; at the start T is the identity.
    """

    def __init__(self, weights: Params, lr: float):
        super().__init__(weights, lr)
        self.extend(torch.eye(len(weight) if weight.ndim else 1).to(weight) for weight in weights.values())

    def moves(self, step: int, direction: Params) -> Params:
        pairs = zip(self.names, self, strict=True)
        return {name: self.lr * self.mixed(direction[name], [matrix @ matrix.mT]) for name, matrix in pairs}


class DiagonalCurvatureStep(MetaCurvatureStep):
    """A step size for every weight, and beside it the mixture of Meta-Curvature: a diagonal plus a Kronecker product.

    At the start the step sizes are `lr` and the first matrix of every mixture is zero.
    """

    def __init__(self, weights: Params, lr: float):
        super().__init__(weights, lr)
        position = 0
        for weight in weights.values():
            with torch.no_grad():
                self[position].zero_()
            position += 1 if weight.ndim < 2 else len(self.axes(weight.shape))
        self.diagonal = nn.ParameterList(torch.full_like(weight, lr) for weight in weights.values())

    def moves(self, step: int, direction: Params) -> Params:
        mixtures = super().moves(step, direction)
        return {name: sizes * direction[name] + mixtures[name] for name, sizes in zip(self.names, self.diagonal, strict=True)}

    def learned_sizes(self) -> Params:
        return dict(zip(self.names, self.diagonal, strict=True))


class GeneratedStep(StepRule):
    """Step sizes and weight decay of every weight tensor, generated from the means of all of them and their gradients (ALFA).

    Args:
        weights: that the inner loop adapts.
        lr: step size at the start.
        decay: weight decay at the start, times `lr`.
        num_steps: that have a size and a decay of their own; further steps take the last one's.
    """

    def __init__(self, weights: Params, lr: float, decay: float, num_steps: int):
        super().__init__(weights)
        tensors = len(weights)
        some = next(iter(weights.values()))
        self.extend(some.new_full((num_steps, tensors), start) for start in (lr, lr * decay))
        self.generator = nn.Sequential(nn.Linear(2 * tensors, 2 * tensors), nn.ReLU(), nn.Linear(2 * tensors, 2 * tensors))
        nn.init.ones_(self.generator[-1].bias)

    def forward(self, step: int, weights: Params, direction: Params) -> Params:
        means = torch.stack([tensors[name].mean() for tensors in (weights, direction) for name in self.names])
        row = min(step, len(self[0]) - 1)
        sizes, decays = (learned[row] * part for learned, part in zip(self, self.generator(means).chunk(2), strict=True))
        return {
            name: (1 - decay) * weights[name] - size * direction[name]
            for name, size, decay in zip(self.names, sizes, decays, strict=True)
        }
