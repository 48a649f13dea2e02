"""RFS: what a generation takes from the one before."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.command_line import QUIET, train
from helpers.small import Blots, algorithm_for, random_tasks, trainer
from torch.testing import assert_close

from app.algorithms.metric_based.rfs import RFS
from app.backbones import Conv4

SMALL = [
    *("--data=Glyphs", "--data.queries=2", "--data.meta_batch_size=2", "--data.val_episodes=2", "--data.test_episodes=2"),
    *("--model=RFS", "--model.backbone=Conv4", "--model.backbone.width=8"),
]


def small(**options) -> tuple[RFS, Blots]:
    data = Blots(ways=3, shots=1, queries=2, meta_batch_size=2, val_episodes=2, test_episodes=2)
    return algorithm_for(RFS, data, backbone=partial(Conv4, width=4), **options), data


def test_the_loss_of_a_generation_with_a_teacher(float64):
    options = {"teacher": Path("any"), "class_weight": 0.3, "distillation_weight": 0.6, "distillation_temperature": 3.0}
    algorithm, _ = small(**options)
    batch, params = random_tasks(), dict(algorithm.named_parameters())
    with torch.no_grad():
        for tensor in algorithm.teacher.state_dict().values():
            tensor.add_(0.1 * torch.rand_like(tensor))
    losses, metrics = algorithm.losses(params, batch)
    images, outputs, labels = algorithm.class_outputs(params, batch, 0)
    algorithm.teacher.eval()
    for task in range(2):
        taught = algorithm.teacher(images[task])
        own, other = (part / 3.0 for part in (outputs[task], taught))
        divergence = F.kl_div(own.log_softmax(-1), other.softmax(-1), reduction="batchmean") * 9.0
        assert_close(metrics["distillation_loss"][task], divergence, rtol=1e-9, atol=1e-12)
        expected = 0.3 * F.cross_entropy(outputs[task], labels[task]) + 0.6 * divergence
        assert_close(losses[task], expected, rtol=1e-9, atol=1e-12)


def test_a_teacher_stays_as_it_is():
    algorithm, data = small(teacher=Path("any"))
    before = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    assert not [name for name, _ in algorithm.named_parameters() if name.startswith("teacher.")]
    trainer(2).fit(algorithm, data)
    moved = {name for name, tensor in algorithm.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not [name for name in moved if name.startswith("teacher.")]
    assert not any(module.training for module in algorithm.train().teacher.modules())


@pytest.mark.slow
def test_generations_on_the_command_line(tmp_path):
    def run(name: str, *options):
        return train("fit", *SMALL, *QUIET, f"--trainer.default_root_dir={tmp_path}/{name}", *options)

    assert run("first", "--trainer.max_steps=2").status == 0
    first = tmp_path / "first" / "checkpoints" / "last.ckpt"
    taught = ["--model.teacher", str(first)]
    outcome = run("second", *taught, "--trainer.max_steps=1")
    assert outcome.status == 0, outcome.err
    assert f"tensors of the teacher are those of {first} (RFS, step 2)" in outcome.out
    before, after = (
        torch.load(path, weights_only=True)["state_dict"] for path in (first, tmp_path / "second/checkpoints/last.ckpt")
    )
    own = {name.removeprefix("teacher."): part for name, part in after.items() if name.startswith("teacher.")}
    assert own and all(torch.equal(part, before[name]) for name, part in own.items())
    outcome = run("other", *taught, "--model.backbone.width=9", "--trainer.max_steps=1")
    assert outcome.status == 1 and f"--model.teacher {first} is of another network: net.body.0.weight" in outcome.err
    first.rename(first.with_suffix(".moved"))
    outcome = run("second", *taught, "--trainer.max_steps=2", "--ckpt_path=last")  # it has the teacher itself
    assert outcome.status == 0, outcome.err
