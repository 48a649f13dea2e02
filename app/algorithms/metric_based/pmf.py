"""P>M>F."""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from app.algorithms.metric_based.meta_baseline import MetaBaseline
from app.algorithms.metric_based.pseudo_queries import changed
from app.episode import Episode
from app.errors import check_at_least
from app.inner_loop.params import Params
from app.learners.episodic_learner import Evaluated
from app.torch_internals import tree_map

RATES = (0.0, 0.0001, 0.001, 0.01)  # of which validation tasks choose one
VALIDATION_TASKS = 5
CHANGED = 0.9  # share of the steps in which the pseudo-queries are changed


class PMF(MetaBaseline):
    """Prototypes by the cosine on a pretrained network, fine-tuned to each test task (Hu et al. 2022).

    Fine-tuning takes Adam's steps on the loss of pseudo-queries, the support pictures flipped, recoloured and shifted at random,
    against the prototypes of the support set. The network's norms stay in evaluation mode. Validation in a fit is without.

    Args:
        eval_finetune_steps: of a test task; 0 for none.
        eval_finetune_lr: Adam's step size; null for that of 0, 0.0001, 0.001 and 0.01 that serves 5 validation tasks best, chosen
            when a test begins; `predict` takes 0 then.
        kwargs: of MetaBaseline.
    """

    def __init__(self, eval_finetune_steps: int = 50, eval_finetune_lr: float | None = None, **kwargs):
        super().__init__(**kwargs)
        check_at_least(0, "model", eval_finetune_steps=eval_finetune_steps, eval_finetune_lr=eval_finetune_lr)
        self.eval_finetune_steps, self.eval_finetune_lr = eval_finetune_steps, eval_finetune_lr
        self.finetune_lr = eval_finetune_lr or 0.0

    @property
    def fine_tunes(self) -> bool:
        """Whether the network changes with each task at hand."""
        return not self.training and self.eval_finetune_steps > 0 and self.finetune_lr > 0

    @property
    def sums_are_enough(self) -> bool:
        return super().sums_are_enough and not self.fine_tunes

    # One task

    def fine_tuned(self, params: Params, x: Tensor, y: Tensor, noise: torch.Generator) -> Params:
        """The network after it was fitted to a support set."""
        net = self.net_params(params)
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in net.items()}
        rest = {name: weight for name, weight in params.items() if not name.startswith("net.")}
        optimizer = torch.optim.Adam(weights.values(), lr=self.finetune_lr)
        for _ in range(self.eval_finetune_steps):
            with torch.enable_grad():
                pictures = torch.cat([x, changed(x, noise, CHANGED)])
                support, queries = functional_call(self.net, weights, (pictures,))[None].chunk(2, 1)
                outputs = self.head_outputs(rest, self.fit_head(rest, support, y[None]), queries)[0]
                gradients = torch.autograd.grad(self.outer_loss(outputs, y), list(weights.values()), materialize_grads=True)
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
        return {name: weight.detach() for name, weight in weights.items()}

    # Stacks of tasks, whose networks are fitted one after the other

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Any:
        if not self.fine_tunes:
            return super().adapt_tasks(params, support_x, support_y, first_episode)
        tasks = zip(support_x, support_y, self.generators(len(support_x), first_episode), strict=True)
        fitted = [self.fine_tuned(params, *task) for task in tasks]
        weights = {f"net.{name}": torch.stack([one[name] for one in fitted]) for name in fitted[0]}
        tasks = zip(self._each(weights), support_x, support_y, strict=True)
        adapted = [super(PMF, self).adapt_tasks(params | own, x[None], y[None]) for own, x, y in tasks]
        return weights, tree_map(lambda *parts: torch.cat(parts), *adapted)

    def predict_tasks(self, params: Params, adapted: Any, query_x: Tensor, first_episode: int = 0) -> Tensor:
        if not self.fine_tunes:
            return super().predict_tasks(params, adapted, query_x, first_episode)
        weights, rest = adapted
        outputs = []
        for task, own in enumerate(self._each(weights)):
            alone = tree_map(lambda part, at=task: part[at : at + 1], rest)
            outputs.append(super().predict_tasks(params | own, alone, query_x[task : task + 1]))
        return torch.cat(outputs)

    @staticmethod
    def _each(weights: Params) -> list[Params]:
        """The weights of each task."""
        count = len(next(iter(weights.values())))
        return [{name: stack[task] for name, stack in weights.items()} for task in range(count)]

    # Validation and test

    def evaluate_tasks(self, params: Params, batch: Episode, split: str, first_episode: int = 0) -> Evaluated:
        rate, self.finetune_lr = self.finetune_lr, 0.0
        try:
            scores, outputs = super().evaluate_tasks(params, batch, split, first_episode)
        finally:
            self.finetune_lr = rate
        if split != "test" or not self.fine_tunes:
            return scores, outputs
        after, outputs = super().evaluate_tasks(params, batch, split, first_episode)
        return {0: scores[0], self.eval_finetune_steps: after[0]}, outputs

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        if self.eval_finetune_lr is None and self.eval_finetune_steps:
            with torch.inference_mode(False), torch.no_grad():
                self.finetune_lr = self.chosen_rate()

    def chosen_rate(self) -> float:
        """The step size that serves the first validation tasks best, of equally good ones the smallest."""
        data, params = self.trainer.datamodule, dict(self.named_parameters())
        found = {}
        for rate in RATES:
            self.finetune_lr, right = rate, []
            for number in range(min(VALIDATION_TASKS, data.num_episodes["val"])):
                draws = data.transfer_batch_to_device(data.draws("val", [number]), self.device, 0)
                task = self.as_dtype(data.realise("val", draws))
                outputs = self.query_outputs(params, task, number)
                right.append((outputs.argmax(-1) == task.query_y).double().mean())
            found[rate] = float(torch.stack(right).mean())
        return max(found, key=found.get)

    def describe_algorithm(self) -> dict[str, Any]:
        return super().describe_algorithm() | {"finetune_steps": self.eval_finetune_steps, "finetune_lr": self.finetune_lr}
