"""The backbone and what is learned beside it, with a learning rate each."""

from functools import partial

import pytest
import torch
from helpers.small import SaveAt, flat, small_run, trainer
from lightning import Callback

from app.errors import InputError
from app.learners.lr_schedule import CosineDecay, Stages
from callbacks.learning_rate import LearningRate

WITH_HEADS = ("MAML", "MetaSGD", "R2D2", "MetaOptNet", "RelationNet", "Baseline", "BaselinePP", "MatchingNetFCE")


def run_of(method: str, **options):
    return small_run(method, head_lr_factor=10.0, optimizer=partial(torch.optim.Adam, lr=0.001), **options)


@pytest.mark.parametrize("method", WITH_HEADS)
def test_every_weight_is_in_one_of_the_two_groups(method):
    algorithm, _ = run_of(method)
    body, beside = algorithm.configure_optimizers().param_groups
    assert (body["lr"], beside["lr"]) == (0.001, 0.01)
    names = {id(parameter): name for name, parameter in algorithm.named_parameters()}
    found = [{names[id(parameter)] for parameter in group["params"]} for group in (body, beside)]
    assert found[0] == {name for name in names.values() if name.startswith("net.body.")}
    assert found[0] | found[1] == set(names.values()) and not found[0] & found[1]


def test_the_head_takes_steps_that_are_ten_times_as_long():
    moved = {}
    for factor in (None, 10.0):
        algorithm, data = small_run("Baseline", head_lr_factor=factor, optimizer=partial(torch.optim.SGD, lr=0.1))
        before = {name: tensor.detach().clone() for name, tensor in algorithm.named_parameters()}
        trainer(1).fit(algorithm, data)
        moved[factor] = {name: tensor.detach() - before[name] for name, tensor in algorithm.named_parameters()}
    for name, change in moved[10.0].items():
        torch.testing.assert_close(change, moved[None][name] * (10 if name.startswith("head") else 1), rtol=1e-3, atol=1e-6)


class Rates(Callback):
    """Keeps what is logged of the learning rates."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        logged = trainer.callback_metrics
        self.seen.append((float(logged["train/lr"]), float(logged["train/lr_2"])))


@pytest.mark.parametrize("schedule", [CosineDecay, partial(Stages, milestones=[1, 3], factors=[0.5, 0.1])])
def test_a_stopped_run_goes_on_with_both_rates(schedule, tmp_path):
    path, ends = str(tmp_path / "second.ckpt"), []
    for resumed in (False, True):
        algorithm, data = run_of("R2D2", lr_scheduler=schedule)
        rates = Rates()
        fit = trainer(4, (LearningRate(), rates, SaveAt(2, path)), log_every_n_steps=1)
        fit.fit(algorithm, data, ckpt_path=path if resumed else None, weights_only=True)
        ends.append((flat(dict(algorithm.named_parameters())), rates.seen))
    (whole, rates), (resumed, last) = ends
    assert torch.equal(whole, resumed) and rates[2:] == last and rates[0][0] > rates[-1][0]
    assert all(beside == pytest.approx(10 * body) for body, beside in rates)


def test_what_cannot_be_parted_is_refused():
    algorithm, _ = run_of("ProtoNet")
    with pytest.raises(
        InputError, match=r"--model.head_lr_factor 10 .* ProtoNet learns nothing beside its backbone; leave it out"
    ):
        algorithm.configure_optimizers()
    algorithm, _ = run_of("R2D2", lr_scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=4))
    with pytest.raises(InputError, match=r"--model.lr_scheduler OneCycleLR sets one rate for all weights"):
        algorithm.configure_optimizers()
    algorithm, _ = small_run("R2D2", head_lr_factor=10.0, optimizer=torch.optim.LBFGS)
    with pytest.raises(InputError, match=r"--model.optimizer: .*per-parameter options"):
        algorithm.configure_optimizers()
    with pytest.raises(InputError, match=r"--model.head_lr_factor is 0; give a number above 0"):
        small_run("R2D2", head_lr_factor=0)
