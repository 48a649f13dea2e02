"""Elastic weight consolidation."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from app.continual.base.differentiation import held
from app.continual.base.streams_at_hand import for_each, of_all, streams_at_hand
from app.continual.base.weight_anchor import WeightAnchor
from app.errors import check_at_least
from datamodules.base.inputs import as_inputs
from datamodules.base.stream import Experience, Samples, StreamDataModule

ELEMENTS = 2**22  # of the gradients of single samples that are in memory together; more leave the cache


class EWC(WeightAnchor):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): the importance is the diagonal of the Fisher information.

    It is the mean over samples of the squared gradient of the log-likelihood of each: the square of a batch's gradient would be
    something else.

    Args:
        strength: lambda; under plain SGD, lr * strength * importance above 2 diverges.
        labels: or targets: sampled, from the network's own answer, as the Fisher information is defined; true, those of the
            samples, the "empirical" Fisher information.
        fisher_samples: of each experience, drawn; null for all.
        kwargs: of ContinualMethod.
    """

    goes_abreast = True
    meta_parameters = WeightAnchor.numbers

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        strength: float = 100.0,
        labels: Literal["sampled", "true"] = "sampled",
        fisher_samples: int | None = None,
        **kwargs,
    ):
        super().__init__(net, stream, strength, **kwargs)
        check_at_least(1, "model.method", or_null="for all", fisher_samples=fisher_samples)
        self.labels, self.fisher_samples = labels, fisher_samples

    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        self.consolidate(self.fisher(number, samples))

    def consolidate(self, fisher: Tensor) -> None:
        """Adds a penalty around the present weights.

        A sum of quadratic functions is one around their weighted mean, and a constant, which has no gradient and is left out. So
        what is kept does not grow with the experiences.
        """
        total = self.importance + fisher
        self.anchor += fisher / total.clamp(min=torch.finfo(total.dtype).tiny) * (self.weights - self.anchor)
        self.importance.copy_(total)

    def fisher(self, number: int, samples: Samples) -> Tensor:
        """Diagonal of the Fisher information on samples of an experience, of the shape of `weights`."""
        draws = [stream.generator("fisher", number) for _, stream in streams_at_hand(self.stream)]
        count = min(self.fisher_samples or len(samples.y), len(samples.y))
        rows = for_each(lambda draw: torch.from_numpy(draw.permutation(len(samples.y))[:count]), draws).to(samples.y.device)
        generators = [torch.Generator().manual_seed(int(draw.integers(2**48))) for draw in draws]
        mask = self.masks[number] if self.masked else torch.ones_like(self.masks[number])
        params = {name: held(parameter) for name, parameter in self.net.named_parameters()}

        def log_likelihood(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            outputs = functional_call(self.net, params, (x[None],)).masked_fill(~mask, -torch.inf)
            return -self.objective.loss(outputs, y[None])

        training = self.net.training
        self.net.eval()
        mine, squares = self.share(count), torch.zeros_like(self.weights)
        at_once = max(1, ELEMENTS // (len(squares) * len(draws)))
        labels = samples.y[rows]
        if self.labels == "sampled":  # every process draws those of all rows
            parts = rows.split(5000)
            outputs = torch.cat([self.predict(as_inputs(samples.images[part])) for part in parts])
            parameters = self.objective.parameters(outputs.masked_fill(~mask, -torch.inf)).detach().cpu()
            labels = for_each(self.objective.sample, of_all(parameters), generators).to(rows.device)
        for part, y in zip(rows[mine].split(at_once), labels[mine].split(at_once), strict=True):
            gradients = vmap(grad(log_likelihood), (None, 0, 0))(params, as_inputs(samples.images[part]), y)
            squares += torch.cat([gradient.square().sum(0).flatten() for gradient in gradients.values()])
        self.net.train(training)
        self.num_gradients += count
        return self.total(squares) / count
