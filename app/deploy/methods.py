"""Ways to name a query with what a checkpoint holds: the algorithm itself, and simpler ones that it must be better than."""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from app.backbones.rows import Rows
from app.backbones.task_batch_norm import TaskBatchNorm
from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm
from app.inner_loop.params import Params
from app.learners.kept_sums import KeepsSums
from app.learners.meta_algorithm import MetaAlgorithm
from app.torch_internals import tree_map

Method = Literal["learned", "feature_mean", "pixel_mean"]
METHODS: tuple[Method, ...] = get_args(Method)
NAMES = {
    "learned": "as it was trained",
    "feature_mean": "nearest mean of its features",
    "pixel_mean": "nearest mean of raw pixels",
}


class Means(NamedTuple):
    """What the nearest mean knows of a support set.

    Attributes:
        means: of the classes, of shape (classes, features).
        spread: the mean squared distance of an example to all means, which softens the probabilities.
        support: the examples, where the norms of the network take their statistics from them; else without rows.
    """

    means: Tensor
    spread: Tensor
    support: Tensor


def allowed(algorithm: MetaAlgorithm) -> tuple[Method, ...]:
    """The methods that a checkpoint of this algorithm has."""
    if algorithm.task_type != "classification":
        return METHODS[:1]
    return METHODS if hasattr(algorithm.net, "body") else ("learned", "pixel_mean")


def fit(method: Method, algorithm: MetaAlgorithm, params: Params, x: Tensor, y: Tensor) -> Any:
    """What the method derives from a support set; copies, since views would keep alive, and write down, all they are views of."""
    if method == "learned":
        return tree_map(_copy, algorithm.adapt(params, x, y))
    needs_support = method == "feature_mean" and any(not norm.uses_running_statistics for norm in _norms(algorithm))
    support = x.clone() if needs_support and not algorithm.learns_streams else x[:0].clone()
    features = _features(method, algorithm, params, support, x)
    members = (y[:, None] == torch.arange(algorithm.output_size, device=y.device)).to(features)
    means = members.T @ features / members.sum(0)[:, None].clamp(min=1)
    spread = (features[:, None] - means).square().sum(-1).mean()
    return Means(means, spread.clamp(min=torch.finfo(spread.dtype).tiny), support)


def probabilities(method: Method, algorithm: MetaAlgorithm, params: Params, fitted: Any, x: Tensor) -> Tensor:
    """Of the classes of the task at hand, of shape (rows, classes).

    Args:
        method: that `fitted` is of.
        algorithm: whose task has `output_size` classes.
        params: its meta-parameters.
        fitted: what `fit` gave.
        x: queries as the algorithm takes them.
    """
    if method == "learned":
        return algorithm.probabilities(algorithm.predict(params, fitted, x))
    features = _features(method, algorithm, params, fitted.support, x)
    return (-(features[:, None] - fitted.means).square().sum(-1) / fitted.spread).softmax(-1)


def features(algorithm: nn.Module, params: Params, x: Tensor, y: Tensor | None = None) -> Tensor:
    """What the algorithm makes of examples before any adaptation, each by itself, of shape (rows, features).

    That is what the body of its network says, else what it adds to its sums, else the features that its head learns from; else
    the examples themselves, as those of a method for streams, whose network changes with what it learns.

    Args:
        algorithm: in evaluation mode.
        params: its meta-parameters.
        x: inputs as the algorithm takes them.
        y: targets of a regression.
    """
    if isinstance(algorithm, MetaAlgorithm) and hasattr(algorithm.net, "body"):
        has_own = any(not norm.uses_running_statistics for norm in _norms(algorithm))
        return _body(algorithm, params, x, Rows(one_by_one=has_own, by_channel=algorithm.norms_by_channel))
    if isinstance(algorithm, KeepsSums):
        return algorithm.addends(params, x, y)
    if isinstance(algorithm, DeployedAlgorithm):
        return algorithm.encode(params, x[None])[0]
    return torch.cat([part.flatten(1) for part in (x, y) if part is not None], 1)


def _features(method: Method, algorithm: MetaAlgorithm, params: Params, support: Tensor, x: Tensor) -> Tensor:
    if method == "pixel_mean":
        return x.flatten(1)
    rows = len(support)
    are = Rows(reference=rows or None, one_by_one=algorithm.learns_streams, by_channel=algorithm.norms_by_channel)
    return _body(algorithm, params, torch.cat([support, x]), are)[rows:]


def _body(algorithm: MetaAlgorithm, params: Params, x: Tensor, rows: Rows) -> Tensor:
    body = {name.removeprefix("body."): part for name, part in algorithm.net_params(params).items() if name.startswith("body.")}
    with rows:
        return functional_call(algorithm.net.body, body, (x,)).flatten(1)


def _norms(algorithm: nn.Module) -> list[TaskBatchNorm]:
    return [module for module in algorithm.modules() if isinstance(module, TaskBatchNorm)]


def _copy(part: Any) -> Any:
    return part.clone(memory_format=torch.contiguous_format) if isinstance(part, Tensor) else part
