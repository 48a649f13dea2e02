"""Every file under configs/ but the sweeps is parsed and built, and all that it names is trained for two steps by it or another.

Not trained are the benchmarks', which take long, and those whose classes another one trains.
"""

from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.command_line import ROOT, begin_only, train
from helpers.pretrained import NAME, write_weights
from helpers.small import options
from lightning import Trainer

from app.continual.learner import ContinualLearner
from datamodules.base.benchmark_images import BenchmarkImages
from datamodules.base.images import ImageEpisodes
from datamodules.base.resumable import ResumableDataModule
from datamodules.base.stream import StreamDataModule
from datamodules.files.cifar100 import CIFAR100
from datamodules.files.image_split import ImageSplit
from datamodules.files.labelled_images import LabelledImages
from datamodules.files.mnist import MNIST
from datamodules.glyphs import Glyphs
from datamodules.osaka import Osaka

FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "sweep")
OPTION = {"configs": "--config", "experiment": "--config", "model": "--model", "data": "--data", "trainer": "--trainer"}
SHORT = {
    "trainer.max_steps": 2,
    "trainer.val_check_interval": 2,
    "trainer.accelerator": "cpu",
    "trainer.strategy": "auto",
    "trainer.devices": 1,
    "trainer.logger": "false",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
}
# Of data sets that have them.
SMALL = {
    "meta_batch_size": 2,
    "val_episodes": 2,
    "train_images": 6,
    "test_images": 4,
    "queries": 2,
    "train_queries": 2,
    "image_size": 36,
    "num_context": [2, 3],
    "num_target": [2, 3],
    "path": "table.csv",
    "label": "task",
    "val_num_classes": [2, 3],
    "test_num_classes": [2, 3],
}
SMALL_WHERE_GIVEN = {"train_ways": 6}  # elsewhere it is null
SMALL_GRID = {"model.grid_range": [-5, 5], "model.points_per_unit": 4}
SMALL_PRETRAINED = {
    "backbones.Pretrained": {"model.backbone.name": NAME, "model.backbone.size": 32},
    "encoder.Encoder": {"data.encoder.name": NAME, "data.encoder.size": 32},
}
NAMES = {
    *(name for small in SMALL_PRETRAINED.values() for name in small),
    *SHORT,
    *SMALL_GRID,
    *(f"data.{name}" for name in SMALL | SMALL_WHERE_GIVEN),
}
CLASSES, IMAGES = 50, 48


def subclasses(base: type) -> list[type]:
    return [cls for child in base.__subclasses__() for cls in (child, *subclasses(child))]


@lru_cache(maxsize=6)
def random_pixels(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (CLASSES * IMAGES, *shape), dtype=np.uint8)


@pytest.fixture(autouse=True)
def random_images(monkeypatch):
    """Every data set of images has random ones: its own tests see to the real."""

    def read_split(self: ImageEpisodes | MNIST | CIFAR100, split: str) -> ImageSplit | LabelledImages:
        pixels = random_pixels(self.picture_shape if isinstance(self, ImageEpisodes) else self.input_shape, len(split))
        if isinstance(self, MNIST | CIFAR100):
            return LabelledImages(pixels, np.arange(len(pixels)) % (10 if isinstance(self, MNIST) else 100), split)
        return ImageSplit(pixels, np.full(CLASSES, IMAGES), [f"{split} {number}" for number in range(CLASSES)], split)

    of_pictures = [cls for cls in subclasses(ImageEpisodes) if cls.input_shape is ImageEpisodes.input_shape]
    for cls in (*of_pictures, MNIST, CIFAR100):
        monkeypatch.setattr(cls, "prepare_data", lambda self: None)
        monkeypatch.setattr(cls, "read_split", read_split)
    monkeypatch.setattr(
        Osaka, "_fashion", lambda self, kind, shape: np.arange(np.prod(shape)).reshape(shape).astype(np.uint8) % 10
    )


@pytest.fixture(autouse=True)
def random_table(tmp_path, monkeypatch):
    """A CSV file with the columns of every config that reads one."""
    monkeypatch.chdir(tmp_path)
    columns = ["task", "country", "x", "year", "y", "lifeExp"]
    rows = [[task, task, x, x, x * task, x * task] for task in range(16) for x in range(6)]
    (tmp_path / "table.csv").write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]))


def data_class(content: dict) -> type[ResumableDataModule]:
    """The data set of a config; glyphs where it names none."""
    class_path = content.get("data", content if "datamodules." in str(content.get("class_path")) else {}).get("class_path")
    return resolve_name(class_path) if class_path else Glyphs


def named(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


BENCHMARKS = [path for path in FILES if issubclass(data_class(yaml.safe_load(path.read_text())), BenchmarkImages)]


@pytest.mark.parametrize("path", [path for path in BENCHMARKS if path.parent.name == "data"], ids=named)
def test_builds_a_benchmark(path: Path):
    content = yaml.safe_load(path.read_text())
    data = resolve_name(content["class_path"])(**content.get("init_args", {}))
    data.setup()
    data.check()
    assert data.episode("test", 0).support_x.shape == (5, *data.input_shape)


def class_paths(content: Any) -> set[str]:
    """Of all classes that a config names, at any depth."""
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    own = {content["class_path"]} if isinstance(content, dict) and "class_path" in content else set()
    return own.union(*map(class_paths, parts))


EXPERIMENTS = [path for path in FILES if path.parent.name == "experiment"]


def trained_and_built() -> tuple[list[Path], list[Path]]:
    """Files of which each names a class that none before it does, experiments first, and the others."""
    trained, built, seen = [], [], set()
    for path in sorted(FILES, key=lambda path: path not in EXPERIMENTS):
        names = class_paths(yaml.safe_load(path.read_text()))
        if path in BENCHMARKS or (path.parent.name in ("experiment", "model", "data") and names <= seen):
            built += [path] * (path not in BENCHMARKS or path in EXPERIMENTS)
        else:
            trained.append(path)
            seen |= names
    return trained, built


TRAINED, BUILT = trained_and_built()


def command_line(path: Path, folder: Path) -> list[Any]:
    """A short fit of what the config leaves open."""
    content = yaml.safe_load(path.read_text())
    class_path = content.get("class_path")
    if path.parent.name == "model" and resolve_name(class_path) is ContinualLearner:
        content, class_path = {"model": content, "data": {"class_path": "datamodules.split_mnist.SplitMNIST"}}, None
    small = {"image_size": SMALL["image_size"]} if path in BENCHMARKS else SMALL
    small = small | {name: value for name, value in SMALL_WHERE_GIVEN.items() if f" {name}:" in path.read_text()}
    short = SHORT | {f"data.{name}": value for name, value in small.items() if name in options(data_class(content))}
    args = [f"--{name}={value}" for name, value in short.items()]
    if "callbacks" not in content.get("trainer", {}):  # the default ones are run by default.yaml
        args.append("--trainer.callbacks=[]")
    if path.parent.name == "model" and issubclass(data_class(content), StreamDataModule):
        args.append("--data=SplitMNIST")
    elif path.parent.name == "model" and "classification" not in resolve_name(class_path).task_types:
        args.append("--data=Sinusoid")
    if path.parent.name == "data" and getattr(data_class(content), "has_streams", False):
        args.append("--model=OML")
    if "ConvCNP" in path.read_text():
        args += [f"--{name}={value}" for name, value in SMALL_GRID.items()]
    for network, small in SMALL_PRETRAINED.items():
        if network in path.read_text():
            weights = write_weights(Path("weights.safetensors").absolute())
            where = next(iter(small)).removesuffix(".name")
            args += [f"--{where}.weights={weights}", *(f"--{name}={value}" for name, value in small.items())]
    return ["fit", OPTION[path.parent.name], path, *args, "--trainer.default_root_dir", folder]


@pytest.mark.slow
@pytest.mark.parametrize("path", BUILT, ids=named)
def test_builds(path: Path, tmp_path, monkeypatch):
    """Method and data, checked against each other."""
    monkeypatch.setattr(Trainer, "fit", begin_only)
    monkeypatch.setattr("app.command_line.cli.print_summary", lambda _: None)
    run = train(*command_line(path, tmp_path))
    assert run.status == 0, run.err
    assert_resolved(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINED, ids=named)
def test_two_steps(path: Path, tmp_path):
    run = train(*command_line(path, tmp_path / "run"))
    assert run.status == 0, run.err
    resolved = assert_resolved(path, tmp_path / "run")
    is_stream = issubclass(resolve_name(resolved["data"]["class_path"]), StreamDataModule)
    for name in ("last",) if is_stream else ("last", "best"):  # a stream has no validation
        checkpoint = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=False)
        assert checkpoint["global_step"] == 2


def assert_resolved(path: Path, folder: Path) -> dict:
    """The config of the run holds what the file says."""
    resolved, file = (yaml.safe_load(one.read_text()) for one in (folder / "config.yaml", path))
    assert_holds(resolved, file if OPTION[path.parent.name] == "--config" else {path.parent.name: file})
    return resolved


def assert_holds(resolved: dict, content: dict, above: str = "") -> None:
    """Everything that the file says is in the resolved config, but for what was made short."""
    for name, value in content.items():
        place = f"{above}{name}"
        if isinstance(value, dict) and place != "trainer.logger":
            assert_holds(resolved[name], value, f"{place}.")
        elif place.replace(".init_args", "") not in NAMES and name != "callbacks":
            assert resolved[name] == value, place


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_begins_with_its_command(path: Path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("train.py fit --config" in line and f"configs/experiment/{path.name}" in line for line in header)
