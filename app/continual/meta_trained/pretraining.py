"""The control of meta-learning for streams: the same encoder, trained by ordinary classification."""

import torch
from torch import Tensor, nn

from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm
from app.episode import Episode
from app.inner_loop.params import Params
from app.learners.meta_algorithm import Metrics


class Pretraining(DeployedAlgorithm):
    """Learns to tell all training classes apart, as ordinary classification does ("Pretraining" of Javed and White 2019).

    The images of support and query set are one batch. Test streams are learned by a new head on the frozen features. The best
    checkpoint is that of the class mean: a plainly trained encoder is not chosen for streams.
    """

    global_labels = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = nn.Linear(self.net.num_features, self.train_output_size)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/accuracy_class_mean", "max"

    def losses(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Tensor, Metrics]:
        if not self.training:
            return super().losses(params, batch, first_episode)
        images, labels = torch.cat([batch.support_x, batch.query_x], 1), torch.cat([batch.support_y, batch.query_y], 1)
        features = self.encode(params, images, first_episode)
        with self.full_precision():
            head = torch.cat([params["head.weight"], params["head.bias"][:, None]], 1)
            outputs = features @ head.mT
        return self.loss_and_score(outputs, labels)
