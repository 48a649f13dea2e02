"""A checkpoint from elsewhere runs nothing, and names no class that is not ours."""

import os
from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, train
from lightning.pytorch.cli import LightningArgumentParser

from app.continual.base.method import ContinualMethod
from app.continual.learner import ContinualLearner
from app.errors import InputError
from app.learners.learner import Learner, concrete_subclasses
from app.runs.known_classes import CHOSEN, check_classes, known_class
from app.runs.run import read_checkpoint


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def trained(tmp_path) -> Path:
    run = train(
        "fit", "--model=ProtoNet", "--data=Glyphs", *QUIET, "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path}"
    )
    assert run.status == 0, run.err
    return tmp_path / "checkpoints" / "last.ckpt"


def test_nothing_is_run(trained, tmp_path):
    checkpoint = read_checkpoint(trained)
    touched = tmp_path / "touched"
    evil = tmp_path / "evil.ckpt"  # another file: what was read is mapped into memory
    torch.save({**checkpoint, "callbacks": Evil(touched)}, evil)
    config = ["--config", tmp_path / "config.yaml", "--ckpt_path", evil]
    deployed = ["--ckpt_path", evil, "--support", tmp_path, "--query", tmp_path]
    initialisation = ["--model=Initialisation", f"--model.checkpoint={evil}", "--data=Trajectories", "--data.source=glyphs"]
    for verb, args in [(verb, config) for verb in ("fit", "validate", "test")] + [("predict", deployed), ("fit", initialisation)]:
        run = train(verb, *args)
        assert run.status == 1 and "system, and a checkpoint holds tensors and plain values alone" in run.err
        assert run.err.count("\n") == 1 and not touched.exists()


def test_a_class_that_is_none_of_ours(trained):
    checkpoint = read_checkpoint(trained)
    options = checkpoint["config"]["model"]["init_args"]
    for name, value in (("backbone", {"class_path": "subprocess.Popen"}), ("optimizer", "antigravity.fly")):
        wrong = {**checkpoint["config"], "model": {**checkpoint["config"]["model"], "init_args": {**options, name: value}}}
        torch.save({**checkpoint, "config": wrong}, trained.with_name(f"{name}.ckpt"))
        run = train(
            "predict", "--ckpt_path", trained.with_name(f"{name}.ckpt"), "--support", trained.parent, "--query", trained.parent
        )
        assert run.status == 1 and "which is no method, network, data set or optimiser of this version" in run.err


@pytest.mark.parametrize(
    "path",
    ["app.backbones.Conv4", "app.backbones.conv4.Conv4", "torch.optim.Adam", "torch.optim.lr_scheduler.StepLR"],
)
def test_classes_of_ours_and_of_torch(path):
    assert known_class(path, "a file").__name__ == path.rsplit(".", 1)[1]


@pytest.mark.parametrize("path", ["os.system", "torch.nn.Linear", "Conv4", "app.Conv5", "app.main.main", "", "app."])
def test_others(path):
    with pytest.raises(InputError, match="a file asks for"):
        check_classes({"init_args": [{"class_path": path}]}, "a file")


def test_every_option_that_takes_a_function_is_looked_at():
    """jsonargparse would import whatever such an option names."""
    taken = set()
    for cls in (*concrete_subclasses(Learner), *concrete_subclasses(ContinualMethod), ContinualLearner):
        if cls.__module__.startswith("app."):
            parser = LightningArgumentParser()
            parser.add_class_arguments(cls, "x", fail_untyped=False)
            hints = {action.dest: repr(getattr(action, "_typehint", "")) for action in parser._actions}
            taken |= {
                name.removeprefix("x.") for name, hint in hints.items() if "Callable" in hint and not name.endswith(".help")
            }
    assert taken and taken <= set(CHOSEN)
