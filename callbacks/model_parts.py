"""What a model is made of."""

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary import get_human_readable_count
from rich import get_console
from rich.table import Table


class ModelParts(ModelSummary):
    """Prints the parts of the model that have parameters, and how many these are, once before training.

    Args:
        max_depth: how deep parts within parts are shown, 0 for no table.
    """

    def __init__(self, max_depth: int = 1):
        super().__init__(max_depth)

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]], total_parameters: int, trainable_parameters: int, *_: Any, **__: Any
    ) -> None:
        columns, fixed = dict(summary_data), total_parameters - trainable_parameters
        table = Table()
        for name, justify in (("part", "left"), ("type", "left"), ("parameters", "right")):
            table.add_column(name, justify=justify)
        for name, kind, count in zip(columns["Name"], columns["Type"], columns["Params"], strict=True):
            if count.strip() != "0":
                table.add_row(name, kind, count.strip())
        total = f"{get_human_readable_count(total_parameters).strip()} parameters"
        total = total + (f", {get_human_readable_count(fixed).strip()} of them not trained" if fixed else "")
        console = get_console()
        console.print(table)
        console.print(total, highlight=False)
