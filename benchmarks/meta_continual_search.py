"""Two searches for the numbers of a continual method, by hand and by gradients, and the streams that what they find is put to."""

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from lightning import Trainer

from app.continual.base.method import MethodCallable
from app.continual.learned_numbers import LearnedNumbers
from app.continual.learner import ContinualLearner
from app.continual.meta_learned.meta_continual import MetaContinual
from app.episode import Episode
from app.errors import InputError
from benchmarks.continual_candidates import Candidate
from benchmarks.continual_tuning import DESCENT, FIRST_STREAM
from callbacks.step_seed import StepSeed
from datamodules.base.inputs import as_inputs
from datamodules.base.stream import StreamDataModule
from datamodules.class_stream import ClassStream
from datamodules.rotated_mnist import RotatedMNIST
from datamodules.split_mnist import SplitMNIST

BATCH, FIRST_SHORT = 10, 100_000  # images of a step; number of the first short stream
START, OUTER_LR = 0.03, 0.3  # the learning rate that meta-learning begins with, and that of the logarithms, which ends at 0
BESIDE_WEIGHTS, WEIGHTS_FACTOR = 0.1, 0.03  # the same beside initial weights, where it stays, and how much of it is theirs


class Stream(NamedTuple):
    """A kind of stream.

    Attributes:
        make: it, of an order that its seed draws.
        scenario: class or domain.
        per: classes of an experience.
        tests: test images of an experience; null for all.
        batch: images of a step.
        short: experiences of a short stream.
    """

    make: Callable[..., StreamDataModule]
    scenario: str
    per: int
    tests: int | None
    batch: int = BATCH
    short: int = 5


STREAMS = {
    "split_mnist": Stream(partial(SplitMNIST, shuffle_classes=True), "class", 2, None),
    "rotated_mnist": Stream(RotatedMNIST, "domain", 10, 200, short=20),  # fewer would be further from each other
}


class Search(NamedTuple):
    """What a search found.

    Attributes:
        method: with the numbers.
        numbers: by their names.
        seconds: of the processor.
        steps: on batches, of all streams together.
    """

    method: MethodCallable
    numbers: dict[str, float]
    seconds: float
    steps: int

    @property
    def words(self) -> str:
        """The numbers."""
        return ", ".join(f"{name} {value:.3g}" for name, value in self.numbers.items())


class Deployed(NamedTuple):
    """What came of streams.

    Attributes:
        accuracies: at the end of each, on all experiences.
        memory_bytes: that the method keeps beside the network.
        gradients: of the loss of single samples, of a stream.
        steps: of a stream.
        seconds: of the processor, of a stream, with its images and its tests.
    """

    accuracies: list[float]
    memory_bytes: int
    gradients: int
    steps: int
    seconds: float


def deploy(stream: Stream, method: MethodCallable, count: int, on: str, images: int, data_dir: Path) -> Deployed:
    """Learns streams of other orders at once: on the official test images those with the seeds 0, 1, ..., on val others."""
    seed = 0 if on == "test" else FIRST_STREAM
    torch.manual_seed(seed)
    tests = stream.tests if on == "test" else min(images, 500)
    sizes = {"train_images": images, "test_images": tests, "batch_size": stream.batch}
    data = stream.make(data_dir=data_dir, evaluate_on=on, seed=seed, **sizes)
    return learn(data, method, count, stream.scenario)


def learn(data: StreamDataModule, method: MethodCallable, count: int, scenario: str) -> Deployed:
    """Goes through so many streams at once, and scores them at their ends."""
    data.prepare_data()
    data.setup()
    learner = ContinualLearner(data, method, num_streams=count, evaluate_every=len(data.experiences))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    loops = {"max_epochs": -1, "max_steps": -1, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    began = time.process_time()
    Trainer(accelerator="cpu", devices=1, callbacks=[StepSeed()], **quiet, **loops).fit(learner, datamodule=data)
    seconds, found = (time.process_time() - began) / count, learner.evaluations
    cost = found[0]["cost"]
    scores = [one["views"][scenario]["metrics"]["ACC"] for one in found]
    return Deployed(scores, cost["memory_bytes"], cost["gradients"], data.own_num_steps, seconds)


def by_hand(candidate: Candidate, count: int, on_validation: Callable[[MethodCallable], Deployed]) -> Search:
    """The numbers of a grid that are best on so many validation streams, which go together for each point of it."""
    began, steps, scores = time.process_time(), 0, {}
    for values in product(DESCENT, *candidate.grid.values()):
        numbers = dict(zip(("lr", *candidate.grid), values, strict=True))
        found = on_validation(candidate.made(**numbers))
        steps += count * found.steps
        scores[values] = mean(found.accuracies)
    values = max(scores, key=scores.__getitem__)
    best = dict(zip(("lr", *candidate.grid), values, strict=True))
    return Search(candidate.made(**best), best, time.process_time() - began, steps)


class Short(NamedTuple):
    """The short streams that are meta-learned on.

    Attributes:
        source: digits, of the same stream; omniglot or glyphs, classes of other characters.
        images: of an experience, to learn.
        streams: of an outer step.
        outer_steps: how many; an initialisation has twice as many.
    """

    source: str
    images: int
    streams: int
    outer_steps: int

    @property
    def passes(self) -> int:
        """How often an experience is gone through; where digits are to come, few images stand for many."""
        return 4 if self.source == "omniglot" else 1

    def read(self, stream: Stream, data_dir: Path) -> StreamDataModule:
        """The first of them; each replica is another one."""
        if self.source == "digits":
            sizes = {"train_images": self.images, "test_images": 40}
            data = stream.make(data_dir=data_dir, evaluate_on="val", seed=FIRST_SHORT, **sizes)
        else:
            classes = {
                "num_classes": stream.short * stream.per,
                "classes_per_experience": stream.per,
                "scenario": stream.scenario,
            }
            sizes = {"train_images": 15, "test_images": 5} if self.source == "omniglot" else {"train_images": 8, "test_images": 4}
            data = ClassStream(self.source, data_dir=data_dir, seed=FIRST_SHORT, split="train", **classes, **sizes)
        data.prepare_data()
        data.setup()
        return data

    def draw(self, stream: Stream, data: StreamDataModule, number: int) -> Episode:
        """Images to learn and held-out ones of a short stream; labels 0, 1, ... in the order of appearance."""
        data.become_replica(number)
        parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"train": [], "test": []}
        for at, experience in enumerate(data.experiences):
            place = torch.zeros(1 + max(experience.classes), dtype=torch.int64)
            place[list(experience.classes)] = torch.arange(stream.per) + at * stream.per
            for split, own in parts.items():
                samples = data.samples(at, split)
                own.append((as_inputs(samples.images), place[samples.y]))
        return Episode(*(torch.cat(part) for own in parts.values() for part in zip(*own, strict=True)))


def by_gradients(stream: Stream, candidate: Candidate, short: Short, initialisation: bool, data_dir: Path) -> Search:
    """The numbers, and initial weights too if wanted, that meta-learning finds."""
    began, learn = time.process_time(), ["lr", *candidate.kind.meta_parameters, *["initialisation"] * initialisation]
    shape = {"scenario": stream.scenario, "classes_per_experience": stream.per, "batch_size": stream.batch}
    torch.manual_seed(0)
    meta = MetaContinual(
        (1, 28, 28),
        stream.short * stream.per,
        method=candidate.made(START, **candidate.start),
        meta_learn=tuple(learn),
        optimizer=partial(torch.optim.Adam, lr=BESIDE_WEIGHTS if initialisation else OUTER_LR),
        initialisation_lr_factor=WEIGHTS_FACTOR,
        passes=short.passes,
        **shape,
    )
    data, optimizer, params, steps = short.read(stream, data_dir), meta.new_optimizer(), dict(meta.named_parameters()), 0
    count, last = (2 * short.outer_steps, 1.0) if initialisation else (short.outer_steps, 1.0 / short.outer_steps)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, last, count - 1)
    for number in range(count):
        drawn = [short.draw(stream, data, number * short.streams + own) for own in range(short.streams)]
        batch = Episode(*(torch.stack(part) for part in zip(*drawn, strict=True)))
        gradient, _ = meta.outer_gradient(params, batch, number * short.streams)
        if not all(part.isfinite().all() for part in gradient.values()):
            numbers = ", ".join(f"{name} {value:.3g}" for name, value in meta.outer.numbers().items())
            raise InputError(f"{candidate.kind.__name__} runs off with {numbers}; begin with smaller ones")
        for name, parameter in params.items():
            parameter.grad = gradient[name]
        optimizer.step()
        schedule.step()
        once = -(-len(drawn[0].support_y) // (stream.short * stream.batch)) * stream.short * short.passes  # of a stream
        steps += short.streams * once * (len(learn) if meta.mode == "forward" else 2)  # for each number, or computed again
    learned = LearnedNumbers(meta.learned() | {"classes": [], "parts": {}}, "the search")
    method = learned.method(partial(candidate.kind, **candidate.options))
    return Search(method, learned.facts["numbers"], time.process_time() - began, steps)
