"""Outer steps of the methods that have no rival here."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from app.algorithms.metric_based.protonet import ProtoNet
from app.algorithms.model_based.anp import ANP
from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.reptile import Reptile
from app.backbones.conv4 import Conv4
from app.backbones.mlp import MLP
from app.continual.methods.la_maml import LaMAML
from app.episode import Episode
from app.torch_internals import fresh_compiler_cache
from benchmarks.maml_shapes import Shape, our_step, random_tasks
from benchmarks.measure import interleaved, seconds_of
from datamodules.base.stream import Experience, StreamBatch, StreamDataModule


class Noise(StreamDataModule):
    """A stream of ten classes of noise, as large as MNIST's pictures."""

    picture_shape, output_size, scenario, digest = (1, 28, 28), 10, "domain", "noise"
    experiences: ClassVar = [Experience("noise", tuple(range(10)))]

    def num_train(self, number: int) -> int:
        return 200

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        images = self.generator("noise", number, split).integers(0, 256, (200, *self.picture_shape), dtype=np.uint8)
        return images, np.arange(200) % 10


def la_maml(device: str) -> Callable[[], Any]:
    """A step of La-MAML on rotated MNIST: a batch of 10, 5 glances, each with 10 inner steps and 10 samples of the memory."""
    stream = Noise(batch_size=10)
    stream.setup()
    method = LaMAML(MLP(stream.input_shape, 10, (100, 100)), stream).to(device)
    method.optimizer = method.make_optimizer()
    batch, generator = StreamBatch(*(tensor.to(device) for tensor in stream.batch(0))), torch.Generator()
    method.memory.add(batch)
    return lambda: method.observe(batch, generator)


def other_methods(device: str, repeats: int, compile: bool = False) -> list[dict[str, Any]]:
    """Outer steps that have no rival here.

    Args:
        device: cpu or cuda.
        repeats: timed steps of each.
        compile: MAML on sine waves is compiled too.
    """
    a = Shape((1, 28, 28), 1, 1, 32, 0.4, {"width": 64})
    image, tasks = a.image, 32
    torch.manual_seed(0)
    conv4, pooled = partial(Conv4, width=64), partial(Conv4, width=64, downsample="max_pool")
    protonet = ProtoNet(input_shape=image, output_size=5, train_output_size=60, backbone=pooled).to(device)
    images, labels = torch.rand(2, 1, 300, *image), torch.arange(60).repeat_interleave(5)[None]
    ways60 = Episode(images[0], labels, images[1], labels)
    anp = ANP(input_shape=(1,), output_size=1, task_type="regression").to(device)
    curves = Episode(*(torch.randn(tasks, rows, 1) for rows in (50, 50, 100, 100)))
    reptile = Reptile(input_shape=image, output_size=5, backbone=conv4, inner_steps=5, inner_batch_size=10).to(device)
    reptile._keep_moments = lambda moments: None
    waves = Episode(*(torch.randn(25, 10, 1) for _ in range(4)))
    sinusoid = partial(MAML, input_shape=(1,), output_size=1, task_type="regression", inner_lr=0.01, inner_steps=5)
    cases = {
        "ProtoNet, 60-way 5-shot, 5 queries": (protonet, ways60, 1),
        "ANP, 50 context points of 100": (anp, curves, tasks),
        "Reptile, 5-way 10-shot, 5 steps": (reptile, random_tasks(a._replace(tasks=5), device, shots=10), 5),
        "MAML, 10 points of a sine wave, 5 steps": (sinusoid().to(device), waves, 25),
    }
    if compile:
        cases["the same, compiled"] = sinusoid(compile=True).to(device), waves, 25
    steps = {}
    for name, (algorithm, batch, _) in cases.items():
        steps[name] = our_step(algorithm, Episode(*(tensor.to(device) for tensor in batch)))
    cases["La-MAML, a batch of 10, 5 glances"] = None, None, 10
    steps["La-MAML, a batch of 10, 5 glances"] = la_maml(device)
    with fresh_compiler_cache():  # of what was compiled before
        first = {name: seconds_of(step, device) for name, step in steps.items()}
    return [
        {
            "method": name,
            "ms per step": str(timing),
            "steps/s": 1 / timing.median,
            "tasks or samples/s": cases[name][2] / timing.median,
            "first step s": first[name],
        }
        for name, timing in interleaved(steps, repeats, device).items()
    ]
