"""An adapted predictor as a program that needs nothing of this application."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from app.errors import InputError

TOLERANCE = 1e-5
Outputs = Callable[[Tensor], tuple[Tensor, ...]]


class Program(nn.Module):
    """Queries to probabilities, or to means and, where there are some, standard deviations.

    Args:
        outputs: a function of the queries; the tensors that it uses become constants of the program.
    """

    def __init__(self, outputs: Outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, query_x: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.outputs(query_x)
        return outputs if len(outputs) > 1 else outputs[0]


@torch.no_grad()
def export(outputs: Outputs, algorithm: str, path: str, inputs: Tensor, dtype: torch.dtype, unit: Tensor | float) -> None:
    """Writes the program to a file, reads it back and compares.

    Args:
        outputs: probabilities of queries, or means and, where there are some, standard deviations.
        algorithm: what messages call it.
        path: of the file.
        inputs: some queries as `outputs` takes them.
        dtype: that the program takes.
        unit: by which a difference of outputs is divided before it is judged.

    Raises:
        InputError: the algorithm cannot be exported, or the program differs.
    """
    target = Path(path)
    if target.suffix != ".pt2":
        raise InputError(f"--export {path} does not end in .pt2; give a file that does")
    given, inputs = inputs, inputs.to(dtype)
    # Of one query alone the number would be fixed; the file keeps the example, so it is nobody's picture.
    example = torch.zeros_like(inputs[:1]).repeat(3, *(1 for _ in inputs.shape[1:]))
    logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.CRITICAL)  # our one line says it
    try:
        program = torch.export.export(
            Program(outputs), (example,), dynamic_shapes=({0: torch.export.Dim("queries")},), strict=False
        )
    except Exception as error:  # torch.export raises errors of many kinds
        raise InputError(
            f"{algorithm} cannot be exported by this version of torch ({_first_line(error)}); leave --export out"
        ) from error
    beside = target.with_name(f".{target.stem}.part.pt2")  # torch.export.save insists on the ending
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, beside)
        loaded = torch.export.load(beside).module()
        for rows in (inputs, torch.cat([inputs, inputs])):
            _compare(unit, loaded(rows), outputs(rows), f"{algorithm} with this version of torch; leave --export out")
        digits = f"numbers with more digits than {inputs.dtype} has; subtract a constant before training, or leave --export out"
        _compare(unit, loaded(inputs), outputs(given), digits)
        beside.replace(target)
    except OSError as error:
        raise InputError(f"--export {target} cannot be written ({error.strerror or error}); give another file") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _compare(unit: Tensor | float, found: Tensor | tuple[Tensor, ...], expected: tuple[Tensor, ...], of: str) -> None:
    found = found if isinstance(found, tuple) else (found,)
    worst = max(((one - other).abs() / unit).max().item() for one, other in zip(expected, found, strict=True))
    if not worst <= TOLERANCE:
        raise InputError(f"the exported program would differ by {worst:.2g}, more than {TOLERANCE:g}, of {of}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
