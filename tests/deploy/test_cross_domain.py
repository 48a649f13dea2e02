"""A learner that was trained on one data set is tested on another."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.benchmark_files import IMAGES, NUM_CLASSES, WRITERS, plain, write
from helpers.command_line import QUIET, Outcome, train
from helpers.small import Blots

from datamodules.cub200 import CUB200
from datamodules.mini_imagenet import MiniImagenet
from datamodules.quickdraw import Quickdraw

SIZE = 20
SMALL = ["--data.ways=2", "--data.shots=2", "--data.queries=1", "--data.meta_batch_size=2", "--data.val_episodes=2"]
SMALL += ["--data.test_episodes=4", f"--data.image_size={SIZE}", "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
NET = ["--model.backbone=Conv4", "--model.backbone.width=4"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[dict[str, Path]]:
    """A run of a method on mini-ImageNet, beside two other data sets."""
    data_dir, runs = tmp_path_factory.mktemp("data"), {}
    with pytest.MonkeyPatch.context() as patch:
        for cls in (MiniImagenet, CUB200, Quickdraw):
            WRITERS[cls](data_dir / cls.folder)
            if cls in NUM_CLASSES:
                patch.setattr(cls, "num_classes", NUM_CLASSES[cls])
                patch.setattr(cls, "num_images", IMAGES * sum(cls.num_classes))
        for method in ("MAML", "Baseline"):
            runs[method] = tmp_path_factory.mktemp(method)
            folders = [f"--data.data_dir={data_dir}", f"--data.cache_dir={data_dir / 'cache'}"]
            folders.append(f"--trainer.default_root_dir={runs[method]}")
            fitted = train("fit", f"--model={method}", *NET, "--data=MiniImagenet", *SMALL, *folders, *QUIET)
            assert fitted.status == 0, fitted.err
        yield runs


def score(run: Path, *args: str) -> Outcome:
    return train("test", f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", *args, *QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MAML", "Baseline"])
def test_one_flag(method, runs):
    run = runs[method]
    for name in ("CUB200", "Quickdraw"):  # of another number of training classes, and grey
        outcome = score(run, f"--data={name}")
        assert outcome.status == 0, outcome.err
        results = json.loads((run / "results.json").read_text())
        assert [results[key] for key in ("data", "ways", "shots", "queries", "num_episodes")] == [name, 2, 2, 1, 4]
        config = run / "config.yaml"
        assert f"--data {name} replaces the data of {config} with all its options but data_dir, cache_dir, ways" in outcome.err


def test_in_a_folder_of_its_own(runs, tmp_path):
    """Nothing is said of a folder that is new."""
    config, checkpoint = runs["MAML"] / "config.yaml", runs["MAML"] / "checkpoints" / "last.ckpt"
    logged = [option for option in QUIET if "logger" not in option]
    folder = f"--trainer.default_root_dir={tmp_path / 'new' / 'run'}"
    outcome = train("test", f"--config={config}", f"--ckpt_path={checkpoint}", folder, *logged)
    assert outcome.status == 0 and outcome.err == "", outcome.err
    assert (tmp_path / "new" / "run" / "results.json").exists()


def test_what_the_command_line_says_counts(runs):
    assert score(runs["MAML"], "--data=CUB200", "--data.shots=1").status == 0
    assert json.loads((runs["MAML"] / "results.json").read_text())["shots"] == 1


def test_other_shapes(runs):
    task = torch.load(runs["MAML"] / "checkpoints" / "last.ckpt", weights_only=False)["task"]
    assert task == {"input_shape": (3, SIZE, SIZE), "output_size": 2, "train_output_size": 2, "task_type": "classification"}
    for args, words in (
        (["--data=CUB200", "--data.image_size=84"], "--data.image_size is 84, and the network of"),
        (["--data=Quickdraw", "--data.channels=1"], "--data.channels is 1, and the network of"),
        ([f"--data={Blots.__module__}.Blots"], "--data has inputs of shape (1, 16, 16), and the network of"),
    ):
        outcome = score(runs["MAML"], *args)
        assert outcome.status == 1 and words in outcome.err and "was trained on" in outcome.err, outcome.err


def test_own_pictures(runs, tmp_path):
    for split in ("train", "val", "test"):
        for number in range(9):
            write(tmp_path / "pictures" / split / f"{split} {number % 3}" / f"{number}.png", plain(number, 30))
    outcome = score(runs["MAML"], "--data=ImageFolder", f"--data.path={tmp_path / 'pictures'}")
    assert outcome.status == 0, outcome.err
    assert json.loads((runs["MAML"] / "results.json").read_text())["shots"] == 2
