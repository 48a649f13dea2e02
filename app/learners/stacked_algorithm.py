"""What the algorithms share that take a stack of tasks at once, instead of one task under vmap."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.func import vmap

from app.backbones.task_batch_norm import TaskBatchNorm, take_statistics, update_running_statistics
from app.episode import Episode
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.learners.meta_algorithm import MetaAlgorithm, Metrics
from app.torch_internals import tree_map


class StackedAlgorithm(MetaAlgorithm):
    """Base of the algorithms that encode the inputs of all tasks in one ordinary batch, or whose layers vmap has no rule for.

    A subclass writes `adapt_tasks` and `predict_tasks`; what the first returns is a tensor, or a tuple of tensors, with a
    leading task axis. One that draws random numbers takes them from `generators`, by the number of the first task.
    """

    def with_running_statistics(self, network: nn.Module) -> nn.Module:
        """The network, each TaskBatchNorm of which keeps the statistics of training, for evaluation unless it is transductive."""
        for module in network.modules():
            if isinstance(module, TaskBatchNorm):
                module.keep_running_statistics(used=not self.transductive)
        return network

    @abstractmethod
    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        """Whatever the algorithm derives from the support sets; pure and differentiable in `params`."""

    @abstractmethod
    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor, first_episode: int = 0) -> Tensor:
        """Outputs of the queries, of shape (tasks, queries, outputs)."""

    def part(self, params: Params, name: str, *inputs: Tensor) -> Any:
        """Output of a part of the network with these parameters."""
        return self.call_module(f"net.{name}", params, *inputs)

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> Any:
        return tree_map(lambda tensor: tensor[0], self.adapt_tasks(params, support_x[None], support_y[None]))

    def predict(self, params: Params, adapted: Any, query_x: Tensor) -> Tensor:
        return self.predict_tasks(params, tree_map(lambda tensor: tensor[None], adapted), query_x[None])[0]

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        return self.loss_and_score(self.query_outputs(params, batch, first_episode), batch.query_y)

    def loss_and_score(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Metrics]:
        """Outer losses and main scores of the outputs of a stack of tasks, each of shape (tasks,)."""
        return vmap(self.outer_loss)(outputs, targets), {self.score_name: vmap(self.score)(outputs, targets)}

    def task_loss(self, params: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        losses, metrics = self.losses(params, Episode(*(tensor[None] for tensor in episode)))
        return losses[0], {name: value[0] for name, value in metrics.items()}

    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        outputs = self.query_outputs(params, batch, first_episode)
        losses, scores = self.loss_and_score(outputs, batch.query_y)
        return {0: {**scores, "loss": losses}}, outputs

    def step_statistics(self) -> dict[str, Tensor]:
        return take_statistics(self)

    def keep_statistics(self, statistics: dict[str, Tensor]) -> None:
        update_running_statistics(self, statistics)
