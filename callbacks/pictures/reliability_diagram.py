"""Whether a probability of 80 % is right in 80 % of the cases, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import LightningModule, Trainer

from callbacks.pictures.picture import PictureCallback, save_and_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReliabilityDiagram(PictureCallback):
    """Draws accuracy over confidence of all queries of `test`, and how many there are of each confidence (Guo et al. 2017)."""

    def draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        calibration = getattr(pl_module, "evaluation", {}).get("calibration")
        if calibration and calibration["bins"] and split == "test":
            save_and_log(trainer, "test/reliability", reliability_figure(calibration), Path(trainer.default_root_dir))


def reliability_figure(calibration: dict[str, Any]) -> "Figure":
    """The diagram of what `Calibration.compute` returned."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 4.8), layout="constrained")
    diagram, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = calibration["bins"]
    left, width = [part["from"] for part in bins], [part["to"] - part["from"] for part in bins]
    diagram.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1, label="perfect calibration")
    diagram.bar(left, [part["accuracy"] for part in bins], width, align="edge", color="C0", edgecolor="white", label="accuracy")
    for part in bins:
        low, high = sorted((part["confidence"], part["accuracy"]))
        centre = (part["from"] + part["to"]) / 2
        diagram.plot([centre, centre], [low, high], color="C3", linewidth=2.5, solid_capstyle="butt")
    diagram.plot([], [], color="C3", linewidth=2.5, label="gap to the mean confidence")
    diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    diagram.set_title(f"expected calibration error {100 * calibration['error']:.2f} %", fontsize=10)
    diagram.legend(fontsize=8, loc="upper left", frameon=False)
    total = calibration["num_queries"]
    counts.bar(left, [100 * part["count"] / total for part in bins], width, align="edge", color="0.6", edgecolor="white")
    counts.set(xlabel="confidence", ylabel="queries (%)")
    for axes in (diagram, counts):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return figure
