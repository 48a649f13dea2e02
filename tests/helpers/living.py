"""Checkpoints in memory, from which learners begin."""

from app.deploy.inputs import Columns, Pictures
from app.deploy.predictor import Predictor, Source
from helpers.small import small_run, task_of


def predictor(method: str, **wanted) -> Predictor:
    """An untrained algorithm; its numbers are all that these tests look at."""
    algorithm, data = small_run(method, task_of(method), **{"head": "ridge"} | wanted)
    shape = data.input_shape
    reading = Pictures(shape) if len(shape) == 3 else Columns.numbered(shape, data.output_size)
    task = {name: getattr(data, name) for name in ("input_shape", "output_size", "train_output_size", "task_type")}
    return Predictor(algorithm.eval().requires_grad_(False), reading, method, Source({"task": task}, {}))
