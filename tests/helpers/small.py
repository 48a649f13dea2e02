"""What several test files share: methods and networks found by themselves, and tasks, data and trainers of a few seconds."""

import inspect
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from itertools import product
from pkgutil import iter_modules
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import Callback, Trainer
from torch import Tensor, nn

import app.algorithms
import app.backbones
from app.algorithms.metric_based.matching_net import MatchingNet
from app.algorithms.optimisation_based.maml import MAML
from app.backbones.mlp import MLP
from app.continual.meta_trained.initialisation import Initialisation
from app.episode import Episode
from app.inner_loop.params import Params
from app.learners.learner import concrete_subclasses
from app.learners.meta_algorithm import MetaAlgorithm
from callbacks.step_seed import StepSeed
from datamodules.base.episodic import EpisodicDataModule
from datamodules.base.images import ImageEpisodes
from datamodules.files.image_split import ImageSplit
from datamodules.sinusoid import Sinusoid

WAYS, SHOTS, QUERIES = 3, 2, 2
SMALL = {"width": 4, "widths": (4, 4, 4, 4), "hidden_sizes": (7, 6), "depth": 10}
SMALL_METHOD = {
    "hidden_size": 16,
    "latent_size": 4,
    "num_heads": 2,
    "num_layers": 2,
    "feedforward_size": 16,
    "num_eval_samples": 5,
    "grid_range": (-5.0, 5.0),
    "points_per_unit": 4.0,
    "channels": 8,
    "num_blocks": 2,
    "kernel_size": 5,
}


ALGORITHMS = sorted(
    {cls for cls in concrete_subclasses(MetaAlgorithm) if cls.__module__.startswith("app.") and cls is not Initialisation},
    key=lambda cls: cls.__name__,
)
SMALL_METHODS = {
    "ANML": {"inner_lr": 0.01},  # a step an image
    "CAVIA": {"film_layer": 3, "inner_lr": 1.0},  # near the head it learns soonest
    "GeMCL": {"beta": 100.0},  # of few features
    "PMF": {"eval_finetune_steps": 0},  # else a test chooses a step size first
    "NeuralStatistician": {"context_size": 16, "latent_size": 4, "hidden_size": 32, "num_layers": 1, "width": 8},
}
METHODS = {cls.__name__: (cls, SMALL_METHODS.get(cls.__name__, {})) for cls in ALGORITHMS} | {
    "FOMAML": (MAML, {"first_order": True}),
    "ANIL": (MAML, {"adapted": "head"}),
    "BOIL": (MAML, {"adapted": "body"}),
    "MatchingNetFCE": (MatchingNet, {"full_context": True}),
}

# By the classes that methods inherit from; what these do for all of them is tested once for each.
SAME_BUT_FOR_THE_HEAD = ("UNICORN", "ProtoMAML", "MetaBaseline")  # MAML and ProtoNet with options that they may have themselves
ONE_OF_EACH_BASE = sorted(
    {cls.__bases__: cls.__name__ for cls in ALGORITHMS if cls.__name__ not in SAME_BUT_FOR_THE_HEAD}.values()
)


def in_turn(*factors: Sequence[Any]) -> list[tuple]:
    """Cases that take every value of each factor at least once, in place of all combinations."""
    return [tuple(values[number % len(values)] for values in factors) for number in range(max(map(len, factors)))]


@cache
def options(cls: type) -> set[str]:
    """Names of the constructor's arguments, those of its base classes included, as the command line knows them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "init", fail_untyped=False)
    return set(vars(parser.get_defaults().init))


def build(cls: type, wanted: dict[str, Any]) -> Any:
    """The class with those of the wanted arguments that it has."""
    known = options(cls)
    return cls(**{name: value for name, value in wanted.items() if name in known})


def networks() -> dict[str, partial]:
    """Every backbone, small, in each of its variants."""
    found = {}
    for module in iter_modules(app.backbones.__path__, "app.backbones."):
        for name, cls in inspect.getmembers(import_module(module.name), inspect.isclass):
            if not issubclass(cls, nn.Module) or cls.__module__ != module.name:
                continue
            arguments = inspect.signature(cls).parameters
            if "output_size" not in arguments or "weights" in arguments:  # published weights have tests of their own
                continue
            small = {option: value for option, value in SMALL.items() if option in arguments}
            choices = {option: get_args(a.annotation) for option, a in arguments.items() if get_origin(a.annotation) is Literal}
            choices.pop("init", None)  # where the weights start is no variant of the network
            for variant in product(*choices.values()):
                found["_".join([name, *variant])] = partial(cls, **small, **dict(zip(choices, variant, strict=True)))
    return found


NETWORKS = networks() | {"MLP_norms": partial(MLP, hidden_sizes=SMALL["hidden_sizes"], norms=True)}


def random_tasks(tasks: int = 2, input_shape: tuple[int, ...] = (1, 16, 16), ways: int = WAYS, seed: int = 0) -> Episode:
    """Classification tasks of noise around a random mean of each class, in the default dtype."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(tasks, ways, 1, *input_shape, generator=generator, dtype=torch.float64)

    def rows(count: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(tasks, ways, count, *input_shape, generator=generator, dtype=torch.float64)
        labels = torch.arange(ways).repeat_interleave(count).expand(tasks, -1)
        return (means + noise).flatten(1, 2).to(torch.get_default_dtype()), labels

    return Episode(*rows(SHOTS), *rows(QUERIES))


def take(batch: Episode, task: int) -> Episode:
    """One task of a batch, without a task axis."""
    return Episode(*(tensor[task] for tensor in batch))


def flat(params: Params) -> Tensor:
    """All tensors as one vector."""
    return torch.cat([tensor.detach().flatten() for tensor in params.values()])


def relative_error(actual: Params, expected: Params) -> float:
    """Norm of the difference over the norm of what is expected; both must have the same names."""
    assert actual.keys() == expected.keys()
    return float((flat(actual) - flat(expected)).norm() / flat(expected).norm())


class Blots(ImageEpisodes):
    """Classes of 16x16 images: a coarse random pattern each, its images shifted by up to a pixel, with noise."""

    picture_shape = (1, 16, 16)

    def read_split(self, split: str) -> ImageSplit:
        generator, classes, images = self.generator(split, 2**32), 40, 8
        coarse = generator.random((classes, 1, 1, 4, 4)) < 0.5
        whole = np.kron(coarse, np.ones((4, 4))).repeat(images, 1).reshape(-1, 16, 16)
        shifts = generator.integers(-1, 2, (len(whole), 2))
        moved = np.stack([np.roll(image, shift, (0, 1)) for image, shift in zip(whole, shifts, strict=True)])
        pixels = (160 * moved + 80 * generator.random(moved.shape)).astype(np.uint8)[:, None]
        return ImageSplit(pixels, np.full(classes, images), [str(number) for number in range(classes)], f"blots {split}")


def algorithm_for(cls: type[MetaAlgorithm], data: EpisodicDataModule, **wanted: Any) -> MetaAlgorithm:
    """The method for that data set, with those of the wanted arguments that it has."""
    if isinstance(data, ImageEpisodes):
        data.global_labels = cls.global_labels
    linked = {name: getattr(data, name) for name in ("input_shape", "output_size", "train_output_size", "task_type")}
    torch.manual_seed(0)
    return build(cls, SMALL_METHOD | linked | wanted)


def trainer(max_steps: int = 3, callbacks: tuple = (), **wanted: Any) -> Trainer:
    """A trainer that writes and shows nothing."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=max_steps,
        max_epochs=-1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[StepSeed(), *callbacks],
        **quiet,
        **wanted,
    )


def method_for(method: str, data: EpisodicDataModule, **wanted: Any) -> MetaAlgorithm:
    """The method for the data; one that chooses its own outer optimiser keeps it."""
    cls, fixed = METHODS[method]
    if "optimizer" in cls.__init__.__annotations__:
        wanted.pop("optimizer", None)
    if data.task_type not in cls.task_types:
        pytest.skip(f"{method} is not for {data.task_type}")
    return algorithm_for(cls, data, **wanted | fixed)


def task_of(method: str) -> str:
    """The first task type that the method is for."""
    return METHODS[method][0].task_types[0]


def small_run(method: str, task: str = "classification", **wanted: Any) -> tuple[MetaAlgorithm, EpisodicDataModule]:
    """The method at its smallest, and data for it."""
    if task == "classification":
        data = Blots(ways=3, shots=2, queries=2, meta_batch_size=4, val_episodes=7, test_episodes=7)
        common = {"backbone": NETWORKS["Conv4_stride"], "inner_lr": 0.3, "inner_steps": 2}
    else:
        data = Sinusoid(shots=5, queries=5, meta_batch_size=4, val_episodes=7, test_episodes=7)
        common = {"backbone": NETWORKS["MLP"], "inner_lr": 0.02, "inner_steps": 2}
    data.setup()
    return method_for(method, data, **common | wanted), data


class SaveAt(Callback):
    """Writes a checkpoint after this step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
