"""A run that begins with the network of another one."""

from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, train

SMALL = [
    *("--data=Glyphs", "--data.queries=2", "--data.meta_batch_size=2", "--data.val_episodes=2", "--data.test_episodes=2"),
    *("--trainer.val_check_interval=1", "--trainer.limit_val_batches=1", "--model.backbone=Conv4"),
]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The checkpoint of a run of Baseline."""
    folder = tmp_path_factory.mktemp("first")
    outcome = run(folder, "--model=Baseline", "--model.backbone.width=8", "--trainer.max_steps=2")
    assert outcome.status == 0, outcome.err
    return folder / "checkpoints" / "last.ckpt"


def run(folder: Path, *options):
    return train("fit", *SMALL, *QUIET, f"--trainer.default_root_dir={folder}", *options)


def network(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: part for name, part in state.items() if name.startswith("net.")}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ProtoNet", "MAML"])
def test_the_network_begins_where_the_other_ended(first, tmp_path, model: str):
    still = ["--model.optimizer=SGD", "--model.optimizer.lr=0.0", "--trainer.max_steps=1"]
    outcome = run(tmp_path, f"--model={model}", "--model.backbone.width=8", f"--model.init_from={first}", *still)
    assert outcome.status == 0, outcome.err
    before, after = network(first), network(tmp_path / "checkpoints" / "last.ckpt")
    body = [name for name in after if name.startswith("net.body") and name.endswith("weight")]
    assert body and all(torch.equal(after[name], before[name]) for name in body)
    assert f"tensors of the network are those of {first} (Baseline, step 2)" in outcome.out
    assert ("as they were: head.weight, head.bias" in outcome.out) == (model == "MAML")
    # A run that goes on does not ask for the file again.
    resumed = [*still[:2], "--trainer.max_steps=2", "--ckpt_path=last", "--model.init_from", first]
    moved = first.rename(first.with_suffix(".moved"))
    try:
        outcome = run(tmp_path, f"--model={model}", "--model.backbone.width=8", *resumed)
    finally:
        moved.rename(first)
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_another_network_is_refused(first, tmp_path):
    for options, said in (
        (
            ["--model.backbone.width=9", f"--model.init_from={first}"],
            "is of another network: body.0.weight is (8, 1, 3, 3) there and",
        ),
        (["--model.init_from=nowhere"], "--model.init_from nowhere does not exist; give the file of a checkpoint"),
    ):
        outcome = run(tmp_path / "run", "--model=ProtoNet", "--trainer.max_steps=1", *options)
        assert outcome.status == 1 and said in outcome.err, outcome.err
        assert outcome.err.count("\n") == 1
