"""What a method has meta-learned, deployed on streams of new classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, ROOT, train

from datamodules.files.image_split import ImageSplit
from datamodules.omniglot import Omniglot

SMALL = ["--data.val_num_classes=[2,3]", "--data.test_num_classes=[2,3]", "--data.val_episodes=2", "--data.test_episodes=2"]
STREAMS = ["--config=configs/experiment/omniglot_initialisation.yaml", "--trainer.max_steps=3", "--trainer.val_check_interval=3"]
CONV = ["--model.backbone=Conv4", "--model.backbone.width=8"]


@pytest.fixture(autouse=True)
def characters(monkeypatch):
    """Omniglot of 40 random classes a split, each a pattern with noise."""

    def read_split(self: Omniglot, split: str) -> ImageSplit:
        generator = np.random.default_rng(len(split))
        patterns = np.kron(generator.random((40, 1, 1, 7, 7)) < 0.5, np.ones((4, 4)))
        pixels = 150 * patterns + 60 * generator.random((40, 20, 1, 28, 28))
        names = [f"{split} {number}" for number in range(40)]
        return ImageSplit(pixels.astype(np.uint8).reshape(-1, 1, 28, 28), np.full(40, 20), names, split)

    monkeypatch.setattr(Omniglot, "prepare_data", lambda self: None)
    monkeypatch.setattr(Omniglot, "read_split", read_split)
    monkeypatch.chdir(ROOT)


def meta_trained(folder: Path, model: str, *args: str) -> Path:
    """A checkpoint of that method."""
    options = [f"--trainer.default_root_dir={folder}", "--trainer.max_steps=2", "--trainer.val_check_interval=2", *CONV]
    tasks = ["--data=Omniglot", "--data.meta_batch_size=2", "--data.val_episodes=2", "--data.queries=2"]
    run = train("fit", *QUIET, f"--model={model}", *tasks, *options, *(args or ["--data.split_protocol=background_evaluation"]))
    assert run.status == 0, run.err
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["MetaSGD", "ProtoNet"])  # with weights of its own beside the network's, and without a head
def test_encoders_of_other_methods_are_deployed(model, tmp_path):
    checkpoint = meta_trained(tmp_path / "meta", model)
    folder = f"--trainer.default_root_dir={tmp_path / 'run'}"
    run = train("fit", *STREAMS, *QUIET, *SMALL, folder, f"--model.checkpoint={checkpoint}")
    assert run.status == 0, run.err
    learned = torch.load(checkpoint, weights_only=False)["state_dict"]
    deployed = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    state = deployed["state_dict"]
    encoder = [name for name in learned if name.startswith("net.body.") and "running" not in name]
    assert encoder and all(torch.equal(state[name], learned[name]) for name in encoder)
    means = [tensor for name, tensor in state.items() if name.endswith("running_mean")]
    assert means and all(bool((mean != 0).any()) for mean in means)
    assert set(deployed["chosen_lrs"]["accuracy"]) == {2, 3}
    test = train("test", f"--config={tmp_path / 'run' / 'config.yaml'}", "--ckpt_path=last", *QUIET)
    assert test.status == 0 and model in (tmp_path / "run" / "results.json").read_text()
    assert "class mean" in test.out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.ckpt", "absent.ckpt does not exist"),
        (lambda folder: meta_trained(folder, "ProtoNet", "--data.split_protocol=vinyals"), "trained on the vinyals split"),
    ],
)
def test_checkpoints_that_cannot_be_deployed(make, message, tmp_path):
    checkpoint = make(tmp_path)
    run = train(
        "fit", *STREAMS, *QUIET, *SMALL, f"--trainer.default_root_dir={tmp_path / 'run'}", f"--model.checkpoint={checkpoint}"
    )
    assert run.status == 1 and message in run.err and len(run.err.splitlines()) == 1
