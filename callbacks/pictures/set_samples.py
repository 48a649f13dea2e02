"""What an algorithm that models sets draws for a set."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from app.episode import Episode
from callbacks.pictures.picture import PictureCallback, save_and_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SetSamples(PictureCallback):
    """Draws the classes of an episode, all images of each, and beside them images that the algorithm samples for that set.

    Only for an algorithm with `sample(params, adapted, count, generator)`, on images; with others it does nothing.

    Args:
        num_samples: images sampled for each set.
        max_images: of a set that are shown.
        max_sets: classes that are shown.
    """

    def __init__(self, num_samples: int = 8, max_images: int = 8, max_sets: int = 8):
        self.num_samples, self.max_images, self.max_sets = num_samples, max_images, max_sets

    @torch.no_grad()
    def draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        if not hasattr(pl_module, "sample") or len(pl_module.input_shape) != 3:
            return
        episode = trainer.datamodule.episode(split, 0)
        episode = pl_module.as_dtype(Episode(*(tensor.to(pl_module.device) for tensor in episode)))
        images = torch.cat([episode.support_x, episode.query_x])
        labels = torch.cat([episode.support_y, episode.query_y])
        params = dict(pl_module.named_parameters())
        adapted = pl_module.adapt(params, images, labels)
        samples = pl_module.sample(params, adapted, self.num_samples, torch.Generator(pl_module.device).manual_seed(0))
        sets = [images[labels == label][: self.max_images].float().cpu() for label in range(min(len(samples), self.max_sets))]
        save_and_log(trainer, f"{split}/samples", self._figure(sets, samples.float().cpu()), Path(trainer.default_root_dir))

    def _figure(self, sets: list[Tensor], samples: Tensor) -> "Figure":
        from matplotlib.figure import Figure

        widths = [max(map(len, sets)), self.num_samples]
        figure = Figure(figsize=(0.6 * sum(widths) + 0.6, 0.6 * len(sets) + 0.5), layout="constrained")
        parts = figure.subfigures(1, 2, width_ratios=widths, wspace=0.03)
        for part, width, title, rows in zip(parts, widths, ("images of a set", "samples"), (sets, samples), strict=True):
            part.suptitle(title, fontsize=9)
            grid = part.subplots(len(sets), width, squeeze=False)
            for axes in grid.flat:
                axes.axis("off")
            for line, images in zip(grid, rows, strict=False):
                for axes, image in zip(line, images, strict=False):
                    axes.imshow(image.permute(1, 2, 0).squeeze(-1).clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        return figure
