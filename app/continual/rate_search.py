"""The step size of a method, found on what its stream teaches before the stream begins."""

import time
from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any

import torch

from app.backbones.rows import Rows
from app.continual.base.method import ContinualMethod
from app.continual.held_out_stream import HeldOutStream
from app.continual.method_stack import MethodStack
from app.continual.metrics import MEASURES, OF_TASKS
from app.continual.stream_scores import mean_scores
from app.continual.stream_step import take_step
from app.errors import InputError
from datamodules.base.stream import StreamDataModule

Build = Callable[[StreamDataModule], ContinualMethod]


def find_rate(build: Build, whole: StreamDataModule, rates: Sequence[float], view: str, like: torch.Tensor) -> dict[str, Any]:
    """Goes through a stream with each step size, on three quarters of its training samples, and is scored on the others.

    Args:
        build: the method for a stream, fresh.
        whole: the stream.
        rates: that are tried; of those that are equally good the first one is chosen.
        view: class, task or domain: which outputs compete.
        like: a weight of the learner, for device and dtype.

    Returns:
        `chosen`, `accuracy` or `mse` of each rate, the worst where the weights were no longer finite, and `seconds` that it took.

    Raises:
        InputError: the method takes no steps.
    """
    started, stream, scores = time.monotonic(), HeldOutStream(whole), {}
    for rate in rates:
        with torch.random.fork_rng(devices=[]):  # the same first weights for each, and none of the run's draws
            torch.default_generator.manual_seed(stream.seed)
            method = build(stream)
        method.to(like.device, like.dtype)
        method.take_rate(rate)
        method.optimizer = method.make_optimizer()
        scores[rate] = _score(method, stream, view, like)
        if not method.num_gradients:
            raise InputError(f"--model.rates are step sizes, and {type(method).__name__} takes no steps; leave them out")
    measure = OF_TASKS[whole.task_type]
    return {
        "chosen": max(rates, key=lambda rate: measure.sign * scores[rate]),
        measure.score: scores,
        "seconds": round(time.monotonic() - started, 2),
    }


@Rows(one_by_one=True)  # an image's features depend on no other image
def _score(method: ContinualMethod, stream: HeldOutStream, view: str, like: torch.Tensor) -> float:
    """The mean over the experiences at the end of the stream."""
    stack = MethodStack([method], [stream])
    for cursor in range(stream.num_steps):
        batch = stream.batch(cursor, like.device)
        batch = batch._replace(x=batch.x.to(like.dtype))
        take_step(stack, {0: batch}, {0: stream.place(cursor)}, cursor, like.device)
    if not all(weight.isfinite().all() for weight in method.parameters()):
        return 0.0 if method.objective.has_classes else inf
    return float(mean_scores(stack, [0], (view,), like.device)[0][view].mean())


def check_rates(rates: Sequence[float], stream: StreamDataModule, meta_learned: Any) -> None:
    """Raises an InputError where these rates cannot be tried on the stream."""
    wrong = ""
    if not rates or not all(isfinite(rate) and rate > 0 for rate in rates):
        wrong = f"{', '.join(f'{rate:g}' for rate in rates) or 'empty'}; give numbers above 0, such as 0.0001,0.0003,0.001"
    elif not stream.has_tests:
        wrong = f"given, and {type(stream).__name__} scores no experience by itself; leave it out"
    elif meta_learned:
        wrong = "given, and --model.meta_learned has the step sizes; leave one of the two out"
    if wrong:
        raise InputError(f"--model.rates is {wrong}")


def in_words(found: dict[str, Any]) -> str:
    """What was chosen, and why."""
    chosen, measure = found["chosen"], next(measure for name, measure in MEASURES.items() if name in found)
    words = {rate: measure.words(score, 1) for rate, score in found[measure.score].items()}
    others = ", ".join(f"{rate:g} {score}" for rate, score in words.items() if rate != chosen)
    ends = {min(words): "smallest", max(words): "largest"}
    edge = f"; it is the {ends[chosen]} of --model.rates, others beyond it may serve better" if chosen in ends else ""
    held_out = f"{'of' if measure.unit else 'on'} a quarter of the training samples, held out of the rest"
    return (
        f"learning rate {chosen:g}: {words[chosen]} {held_out}{f' ({others})' * bool(others)}, in {found['seconds']:.0f} s{edge}"
    )
