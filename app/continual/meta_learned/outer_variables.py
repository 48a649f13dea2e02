"""What is meta-learned of a method for streams, in a form that may be any number."""

import torch
from torch import Tensor, nn
from torch.optim import SGD

from app.continual.base.meta_parameters import ABOVE_ZERO, Range
from app.continual.base.method import ContinualMethod, is_differentiable
from app.continual.meta_learned.course import LR, STEP_SIZE
from app.continual.meta_learned.hypergradients import Outer
from app.errors import InputError
from app.learners.learner import concrete_subclasses

PER_LAYER, PER_WEIGHT, INITIALISATION = "lr_per_layer", "lr_per_weight", "initialisation"
RATES = (LR, PER_LAYER, PER_WEIGHT)
HEAD = "head."  # how the names of the weights of a network's last layer begin


class OuterVariables(nn.Module):
    """Numbers, step sizes and initial weights of a method, each between its bounds whatever the outer optimiser does.

    A stream may have any number of classes: the head begins with new weights, and has one step size for its matrix and one for
    its bias, where other weights have their own.

    Args:
        learn: names of what is learned.
        method: as a person has set it.

    Attributes:
        as_set: the numbers of the method as they were set, the learned ones and `lr`.
        free: logarithms or logits of single numbers, by their names.
        rates: logarithms of the step sizes of each weight, in their order.
        initial: weights of the network's body, in their order.

    Raises:
        InputError: the method has no such number, or it was set out of its range.
    """

    def __init__(self, learn: list[str], method: ContinualMethod):
        super().__init__()
        ranges = {LR: ABOVE_ZERO, **_ranges(learn, method)}
        weights = dict(method.net.named_parameters())
        self.names, self.learn = list(weights), list(learn)
        self.as_set = {name: _as_set(method, name) for name in (LR, *ranges) if name == LR or name in learn}
        for name, value in self.as_set.items():
            if not ranges[name].holds(value):
                option = "optimizer.lr" if name == LR else name
                raise InputError(f"--model.method.{option} is {value:g}; to be meta-learned it has to be {ranges[name].words}")
        self._ranges = {name: ranges[name] for name in learn if name in ranges}
        like = next(iter(weights.values())).detach()
        start = {name: own.free(like.new_tensor(self.as_set[name])) for name, own in self._ranges.items()}
        self.free = nn.ParameterDict({name: nn.Parameter(value) for name, value in start.items()})
        log_lr = ABOVE_ZERO.free(like.new_tensor(self.as_set[LR]))
        shapes = {name: () if PER_LAYER in learn or name.startswith(HEAD) else weight.shape for name, weight in weights.items()}
        has_rates = PER_LAYER in learn or PER_WEIGHT in learn
        self.rates = nn.ParameterList(log_lr.expand(shape).clone() for shape in shapes.values() if has_rates)
        self.body = [name for name in weights if not name.startswith(HEAD)] if INITIALISATION in learn else []
        self.initial = nn.ParameterList(weights[name].detach().clone() for name in self.body)

    @property
    def are_numbers(self) -> bool:
        """Whether all of them are single numbers."""
        return all(parameter.ndim == 0 for parameter in self.parameters())

    def values(self) -> Outer:
        """What they stand for, differentiable; `lr` as it was set where none is learned."""
        found = {name: own.value(self.free[name]) for name, own in self._ranges.items()}
        sizes = {STEP_SIZE + name: rate.exp() for name, rate in zip(self.names, self.rates, strict=False)}
        fixed = {} if sizes or LR in found else {LR: torch.tensor(self.as_set[LR], **_like(next(self.parameters())))}
        return Outer(
            {**found, **sizes, **fixed}, {f"net.{name}": part for name, part in zip(self.body, self.initial, strict=True)}
        )

    def set_values(self) -> Outer:
        """What a person has set, and nothing of the weights."""
        like = _like(next(self.parameters()))
        return Outer({name: torch.tensor(value, **like) for name, value in self.as_set.items()}, {})

    def gradient(self, derivatives: Outer) -> list[Tensor]:
        """The gradient in each parameter, given that in what they stand for."""
        values = self.values()
        pairs = [(values[at][name], slope) for at in (0, 1) for name, slope in derivatives[at].items()]
        pairs = [(value, slope) for value, slope in pairs if value.requires_grad]
        outputs, slopes = zip(*pairs, strict=True)
        return list(torch.autograd.grad(outputs, list(self.parameters()), slopes, materialize_grads=True))

    def numbers(self) -> dict[str, float]:
        """The single numbers that are learned, as they are now."""
        return {name: float(own.value(self.free[name].detach())) for name, own in self._ranges.items()}


def _like(tensor: Tensor) -> dict[str, torch.dtype | torch.device]:
    return {"dtype": tensor.dtype, "device": tensor.device}


def _as_set(method: ContinualMethod, name: str) -> float:
    return method.optimizer.param_groups[0]["lr"] if name == LR else getattr(method, name)


def _ranges(learn: list[str], method: ContinualMethod) -> dict[str, Range]:
    """Of the numbers that the method names."""
    kind = type(method)
    if not is_differentiable(kind):
        able = sorted(cls.__name__ for cls in concrete_subclasses(ContinualMethod) if is_differentiable(cls))
        raise InputError(f"--model.method {kind.__name__} cannot be differentiated; give one of {', '.join(able)}")
    known = (*RATES, INITIALISATION, *kind.meta_parameters)
    if not learn or (wrong := next((name for name in learn if name not in known), None)):
        what = f"names {wrong}, which {kind.__name__} does not have" if learn else "is empty"
        raise InputError(f"--model.meta_learn {what}; give some of {', '.join(known)}")
    if len(set(learn)) < len(learn) or len(set(learn) & set(RATES)) > 1:
        raise InputError(f"--model.meta_learn {learn} names the learning rate, or another number, twice; give each once")
    made = method.make_optimizer()
    plain = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
    if type(made) is not SGD or len(made.param_groups) > 1 or any(made.param_groups[0][name] for name in plain):
        raise InputError(
            f"--model.method.optimizer {type(made).__name__} is no plain gradient descent, which alone is differentiated; give "
            "SGD with lr and no other option"
        )
    method.optimizer = made
    return kind.meta_parameters
