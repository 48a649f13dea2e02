"""An adapted predictor as a program that needs nothing of this application."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from app.deploy.inputs import Columns, Pictures
from app.errors import InputError

if TYPE_CHECKING:
    from app.deploy.adapted import Adapted

TOLERANCE = 1e-5
CLASSES, DESCRIPTION = "classes.json", "description.txt"  # in the file, beside the program
Outputs = Callable[[Tensor], tuple[Tensor, ...]]


class Program(nn.Module):
    """Queries to probabilities, or to means and, where there are some, standard deviations.

    Args:
        outputs: a function of the queries; the tensors that it uses become constants of the program.
        reading: of pictures as a person has them; null where the queries come as `outputs` takes them.
        dtype: that `outputs` takes.
    """

    def __init__(self, outputs: Outputs, reading: Pictures | None, dtype: torch.dtype):
        super().__init__()
        self.outputs, self.reading, self.dtype = outputs, reading, dtype

    def forward(self, query_x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.reading is not None:
            query_x = self.reading.in_program(query_x).to(self.dtype)
        outputs = self.outputs(query_x)
        return outputs if len(outputs) > 1 else outputs[0]


@torch.no_grad()
def export(adapted: "Adapted", path: str, query_x: Any) -> None:
    """Writes the program to a file, reads it back and compares.

    Args:
        adapted: on the CPU.
        path: of the file.
        query_x: some queries as `predict` takes them.

    Raises:
        InputError: the algorithm cannot be exported, or the program differs.
    """
    target, name, reading = Path(path), type(adapted.algorithm).__name__, adapted.reading
    if target.suffix != ".pt2":
        raise InputError(f"--export {path} does not end in .pt2; give a file that does")
    dtype, unit = next(iter(adapted.params.values())).dtype, 1.0
    if isinstance(reading, Pictures):
        inputs, open_sizes, example = reading.program_queries(query_x, "query_x"), reading.open_sizes, reading.program_example()
        expected = reading.in_program(inputs)
    else:
        expected = reading.inputs(query_x, "query_x").cpu()
        inputs, open_sizes = expected.to(dtype), ("queries",)
        # Of one query alone the number would be fixed; the file keeps the example, so it is nobody's.
        example = torch.zeros_like(inputs[:1]).repeat(3, 1)
        # Targets in the units that the algorithm was trained on: those of the table may be billions or billionths.
        unit = reading.scale("y", inputs.device)[1] if reading.y else 1.0
    limits = {"channels": {"min": 1, "max": 3}}
    dims = {axis: torch.export.Dim(size, **limits.get(size, {})) for axis, size in enumerate(open_sizes)}
    logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.CRITICAL)  # our one line says it
    program = Program(adapted.outputs, reading if isinstance(reading, Pictures) else None, dtype)
    try:
        exported = torch.export.export(program, (example,), dynamic_shapes=(dims,), strict=False)
    except Exception as error:  # torch.export raises errors of many kinds
        raise InputError(
            f"{name} cannot be exported by this version of torch ({_first_line(error)}); leave --export out"
        ) from error
    beside = target.with_name(f".{target.stem}.part.pt2")  # torch.export.save insists on the ending
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(exported, beside, extra_files=_words(adapted, name))
        loaded = torch.export.load(beside).module()
        for twice in (1, 2):
            of_rows = adapted.outputs(torch.cat([expected] * twice).to(dtype))
            differs = f"{name} with this version of torch; leave --export out"
            _compare(unit, loaded(torch.cat([inputs] * twice)), of_rows, differs)
        digits = f"numbers with more digits than {dtype} has; subtract a constant before training, or leave --export out"
        _compare(unit, loaded(inputs), adapted.outputs(expected), digits)
        beside.replace(target)
    except OSError as error:
        raise InputError(f"--export {target} cannot be written ({error.strerror or error}); give another file") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _words(adapted: "Adapted", algorithm: str) -> dict[str, str]:
    """What the file says of the program: the names of the classes, and what goes in and comes out."""
    reading = adapted.reading
    if isinstance(reading, Columns) and not reading.y:
        text = (
            f"{algorithm}. Input: the columns {', '.join(reading.x)}, of shape (queries, {len(reading.x)}). Output: the "
            f"probability of each class, in the order of {CLASSES}, of shape (queries, {len(adapted.classes)})."
        )
        return {CLASSES: json.dumps([str(name) for name in adapted.classes], ensure_ascii=False), DESCRIPTION: text}
    if isinstance(reading, Columns):
        text = (
            f"{algorithm}. Input: the columns {', '.join(reading.x)}, of shape (queries, {len(reading.x)}). Output: means of "
            f"{', '.join(reading.y)}, and standard deviations where the algorithm has some."
        )
        return {CLASSES: "[]", DESCRIPTION: text}
    ground = "Black becomes white. " if reading.inverts else ""
    together = (
        "The queries of a call are normalised together. " if adapted.transductive else "Each picture is answered by itself. "
    )
    text = (
        f"{algorithm}. Input: {reading.program_takes}, of shape (queries, channels, height, width). {ground}{together}"
        f"Output: the probability of each class, in the order of {CLASSES}, of shape (queries, {len(adapted.classes)})."
    )
    return {CLASSES: json.dumps([str(name) for name in adapted.classes], ensure_ascii=False), DESCRIPTION: text}


def _compare(unit: Tensor | float, found: Tensor | tuple[Tensor, ...], expected: tuple[Tensor, ...], of: str) -> None:
    found = found if isinstance(found, tuple) else (found,)
    worst = max(((one - other).abs() / unit).max().item() for one, other in zip(expected, found, strict=True))
    if not worst <= TOLERANCE:
        raise InputError(f"the exported program would differ by {worst:.2g}, more than {TOLERANCE:g}, of {of}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
