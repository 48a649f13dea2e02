"""Episodes as a person sees them."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer

from app.episode import Episode
from callbacks.pictures.curve_figure import Curve, curve_figure
from callbacks.pictures.image_figure import image_figure
from callbacks.pictures.picture import PictureCallback, save_and_log
from datamodules.base.episodic import EpisodicDataModule


class EpisodeGallery(PictureCallback):
    """Draws episodes with what the adapted learner predicts: images with true and predicted labels, or fitted curves.

    A curve has a band of two standard deviations where the algorithm predicts one, and the true posterior beside it where the
    data set knows that.

    Args:
        num_episodes: how many, each the first of an evaluation batch; in `test` one of each group where the data set has groups.
        max_queries: query images of an episode.
    """

    def __init__(self, num_episodes: int = 2, max_queries: int = 20):
        self.num_episodes, self.max_queries = num_episodes, max_queries

    @torch.no_grad()
    def draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        data = trainer.datamodule
        if not isinstance(data, EpisodicDataModule) or not hasattr(pl_module, "adapt"):
            return
        indices = self._indices(data, split)
        if pl_module.task_type == "classification" and len(data.input_shape) == 3:
            shown = []
            for index in indices:
                episode = self._episode(pl_module, data, split, index)
                pixels = episode._replace(support_x=data.pixels(episode.support_x), query_x=data.pixels(episode.query_x))
                shown.append((_on_cpu(pixels), self._predict(pl_module, episode, episode.query_x)))
            figure = image_figure(shown, self.max_queries)
        elif pl_module.task_type == "regression" and data.input_shape == (1,):
            figure = curve_figure([self._curve(pl_module, data, split, index) for index in indices], data.axis_names)
        else:
            return
        save_and_log(trainer, f"{split}/episodes", figure, Path(trainer.default_root_dir))

    def _indices(self, data: EpisodicDataModule, split: str) -> list[int]:
        total = data.num_episodes[split]
        if split == "test" and data.test_groups:
            groups = [data.group(split, index) for index in range(total)]
            return [groups.index(group) for group in data.test_groups if group in groups]
        return list(dict.fromkeys(number * data.meta_batch_size % total for number in range(self.num_episodes)))

    def _episode(self, pl_module: LightningModule, data: EpisodicDataModule, split: str, index: int) -> Episode:
        return pl_module.as_dtype(Episode(*(tensor.to(pl_module.device) for tensor in data.episode(split, index))))

    def _predict(self, pl_module: LightningModule, episode: Episode, query_x: torch.Tensor) -> torch.Tensor:
        params = dict(pl_module.named_parameters())
        adapted = pl_module.adapt(params, episode.support_x, episode.support_y)
        return pl_module.predict(params, adapted, query_x).float().cpu()

    def _curve(self, pl_module: LightningModule, data: EpisodicDataModule, split: str, index: int) -> Curve:
        episode = self._episode(pl_module, data, split, index)
        inputs = torch.cat([episode.support_x, episode.query_x])
        x = torch.linspace(float(inputs.min()), float(inputs.max()), 400).to(inputs)[:, None]
        outputs = self._predict(pl_module, episode, x)
        mean, std = outputs[:, : data.output_size], outputs[:, data.output_size :]
        posterior = data.posterior(split, index, x.double().cpu().numpy())
        title = data.title(split, index)
        return Curve(_on_cpu(episode), title, x.float().cpu()[:, 0], mean, std if std.shape[1] else None, posterior)


def _on_cpu(episode: Episode) -> Episode:
    return Episode(*(tensor.float().cpu() for tensor in episode))
