"""Images as a regression completes them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.pictures.picture import PictureCallback, save_and_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = (0.0, 0.0, 0.5)  # blue where a pixel is not given


class CompletedImages(PictureCallback):
    """Draws images of the split with the pixels given, the mean that is predicted, its standard deviation, and the truth.

    Only for data sets that can give whole images by `whole_image(split, index)`; with others it does nothing. An algorithm that
    predicts no standard deviation gets no picture of it.

    Args:
        num_images: how many, the first of the split.
        context_sizes: pixels given, from left to right; half of the image comes after them.
    """

    def __init__(self, num_images: int = 2, context_sizes: tuple[int, ...] = (10, 50, 200)):
        self.num_images, self.context_sizes = num_images, context_sizes

    @torch.no_grad()
    def draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        data = trainer.datamodule
        if not hasattr(data, "whole_image"):
            return
        shape, dtype = data.image_shape, next(pl_module.parameters()).dtype
        params, num_pixels = dict(pl_module.named_parameters()), shape[1] * shape[2]
        sizes = [*(size for size in self.context_sizes if size < num_pixels // 2), num_pixels // 2]
        shown = []
        for index in range(self.num_images):
            x, y = (part.to(pl_module.device, dtype) for part in data.whole_image(split, index))
            order = torch.from_numpy(np.random.default_rng(index).permutation(num_pixels)).to(x.device)
            columns = []
            for size in sizes:
                given = order[:size]
                adapted = pl_module.adapt(params, x[given], y[given])
                mean, *std = pl_module.predict(params, adapted, x).float().cpu().split(shape[0], -1)
                seen = y.new_tensor(MISSING).expand(num_pixels, 3).clone()
                seen[given] = y[given].expand(-1, 3) + 0.5
                columns.append((seen.float().cpu(), mean + 0.5, *std))
            shown.append((y.float().cpu() + 0.5, columns))
        figure = self._figure(shown, sizes, shape)
        save_and_log(trainer, f"{split}/completed_images", figure, Path(trainer.default_root_dir))

    def _figure(self, shown: list[tuple[Tensor, list[Any]]], sizes: list[int], shape: tuple[int, int, int]) -> "Figure":
        from matplotlib.figure import Figure

        names = ("given", "mean", "std")[: len(shown[0][1][0])]
        figure = Figure(figsize=(1.2 * len(sizes) + 1.8, 1.15 * len(names) * len(shown) + 0.4), layout="constrained")
        grid = figure.subplots(len(names) * len(shown), len(sizes) + 1, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)

        def draw(axes: Any, pixels: Tensor, **options: Any) -> None:
            axes.imshow(pixels.view(*shape[1:], -1).squeeze(-1).clamp(0, 1), **{"cmap": "gray", "vmin": 0, "vmax": 1} | options)

        for number, (truth, columns) in enumerate(shown):
            lines = grid[number * len(names) : (number + 1) * len(names)]
            for column, parts in enumerate(columns):
                for line, name, pixels in zip(lines, names, parts, strict=True):
                    # Of several channels, the mean of their deviations; white from half of the range of a pixel on.
                    options = {"cmap": "magma", "vmax": 0.5} if name == "std" else {}
                    draw(line[column], pixels.mean(-1) if name == "std" else pixels, **options)
            draw(lines[0][-1], truth)
            for line, name in zip(lines, names, strict=True):
                line[0].set_ylabel(name, fontsize=8)
        for axes, title in zip(grid[0], [*(f"{size} pixels" for size in sizes), "true image"], strict=True):
            axes.set_title(title, fontsize=8)
        return figure
