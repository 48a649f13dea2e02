"""MAML++: its switches one by one, and all together against plain PyTorch."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import NETWORKS, WAYS, random_tasks, relative_error, small_run, take, trainer
from lightning.pytorch.callbacks import LambdaCallback

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.maml_pp import MAMLPP
from app.backbones.task_batch_norm import TaskBatchNorm
from app.errors import InputError
from callbacks.replica_check import checksum

OFF = {"multi_step_share": 0.0, "learned_step_sizes": False, "per_step_norms": False, "lr_scheduler": None}
STEPS = 3


def maml_pp(network="Conv4_stride", seed=0, **kwargs):
    """MAML++ whose step sizes and norms differ from step to step."""
    torch.manual_seed(seed)
    options = {"inner_lr": 0.4, "inner_steps": STEPS, "multi_step_share": 0.5} | kwargs
    algorithm = MAMLPP(input_shape=(1, 16, 16), output_size=WAYS, backbone=NETWORKS[network], **options)
    with torch.no_grad():
        for parameter in [*algorithm.step_sizes, *algorithm.later_norms]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    algorithm._progress = 0.2
    return algorithm


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("first_order", [False, True])
def test_with_all_switches_off_it_is_maml_bit_for_bit(task, first_order):
    options = {"inner_steps": STEPS, "first_order": first_order}
    sums = []
    for method, off in (("MAML", {}), ("MAMLPP", OFF)):
        algorithm, data = small_run(method, task, **options, **off)
        trainer(4).fit(algorithm, data)
        sums.append(checksum(algorithm.state_dict()))
        names = set(algorithm.state_dict())
    assert sums[0] == sums[1] and names == set(small_run("MAML", task)[0].state_dict())


def test_every_switch_changes_the_training():
    sums = set()
    for off in (OFF, OFF | {"first_order_share": 0.5}, *({k: v for k, v in OFF.items() if k != on} for on in OFF)):
        algorithm, data = small_run("MAMLPP", inner_steps=STEPS, **off)
        trainer(3).fit(algorithm, data)
        sums.add(int(checksum(dict(algorithm.net.named_parameters()))))
    assert len(sums) == 2 + len(OFF)


@pytest.mark.parametrize("network", ["Conv4_max_pool", "MLP"])
@pytest.mark.parametrize("options", [{}, {"transductive": False, "adapted": "head"}, {"inner_optimizer": "momentum"}])
def test_equals_finite_differences(float64, network, options):
    algorithm, batch = maml_pp(network, **options), random_tasks()
    algorithm.outer_gradient = partial(MAML.outer_gradient, algorithm)  # which leaves the progress as it is
    gradient = gradient_of(algorithm, batch)
    assert difference_error(algorithm, batch, gradient) < 1e-7
    learned = [name for name in gradient if name.startswith(("step_sizes", "later_norms"))]
    assert len(learned) > (1 if network == "MLP" else 8)
    assert all(gradient[name].norm() > 0 for name in learned)


def plain_loss(algorithm, episode, importance):
    """The outer loss by torch.autograd, step after step on a network whose weights are put in place."""
    net = copy.deepcopy(algorithm.net)
    weights = {name: parameter for name, parameter in algorithm.net.named_parameters()}
    norms = [name for name, module in net.named_modules() if isinstance(module, TaskBatchNorm)]
    norms = [name for name in weights if name.rsplit(".", 1)[0] in norms]
    adapted = {name: weight for name, weight in weights.items() if name not in norms}
    later = dict(zip(norms, algorithm.later_norms, strict=True))
    sizes = dict(zip(adapted, algorithm.step_sizes, strict=True))
    total = 0
    for step in range(STEPS):
        of_step = {name: weights[name] if step == 0 else later[name][step - 1] for name in norms}

        def loss(weights, x, y, of_step=of_step):
            return F.cross_entropy(torch.func.functional_call(net, weights | of_step, (x,)), y)

        gradient = torch.autograd.grad(loss(adapted, *episode[:2]), list(adapted.values()), create_graph=True)
        steps = zip(adapted.items(), gradient, strict=True)
        adapted = {name: weight - sizes[name][step] * slope for (name, weight), slope in steps}
        total = total + importance[step] * loss(adapted, *episode[2:])
    return total


@pytest.mark.parametrize(("progress", "importance"), [(0.0, [1 / 3] * 3), (0.25, [1 / 6, 1 / 6, 2 / 3]), (0.5, [0, 0, 1])])
def test_equals_plain_pytorch(float64, progress, importance):
    algorithm, episode = maml_pp(), take(random_tasks(), 0)
    algorithm._progress = progress
    params = dict(algorithm.named_parameters())
    actual, metrics = algorithm.task_loss(params, episode)
    expected = plain_loss(algorithm, episode, importance)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, list(params.values()), materialize_grads=True) for loss in (actual, expected)]
    assert relative_error(*(dict(zip(params, gradient, strict=True)) for gradient in gradients)) < 1e-12
    assert progress == 0.5 or abs(metrics["outer_loss"] - plain_loss(algorithm, episode, [0, 0, 1])) < 1e-12


@pytest.mark.parametrize(("progress", "expected"), [(0.0, [0.2] * 5), (0.05, [0.1] * 4 + [0.6]), (0.0999, [0.006] * 4 + [0.976])])
def test_importance_of_the_steps(progress, expected):
    algorithm = maml_pp(inner_steps=5, multi_step_share=0.1)
    algorithm._progress = progress
    assert algorithm.importance() == pytest.approx(expected, rel=1e-12)


def test_steps_beyond_those_of_training_are_as_the_last():
    algorithm = maml_pp(eval_inner_steps=5).eval()
    support_x, support_y, *_ = take(random_tasks(), 0)
    params = dict(algorithm.named_parameters())
    *_, before, last = algorithm.adaptation(params, support_x, support_y)
    names = list(algorithm.adapted_weights())
    sizes = {name: size[-1] for name, size in zip(names, algorithm.step_sizes, strict=True)}
    gradient = torch.func.grad(lambda adapted: F.cross_entropy(algorithm.network(before.weights | adapted, support_x), support_y))
    slopes = gradient({name: before.weights[name] for name in names})
    for name in names:
        torch.testing.assert_close(last.weights[name], before.weights[name] - sizes[name] * slopes[name])
    norms = [name for name in last.weights if name not in names]
    assert norms and all(torch.equal(last.weights[name], before.weights[name]) for name in norms)


class Orders(MAMLPP):
    """Notes how far the run is and which derivatives are taken."""

    def outer_gradient(self, params, batch, first_episode=0):
        result = super().outer_gradient(params, batch, first_episode)
        self.noted = [*getattr(self, "noted", []), (self._progress, self.first_order)]
        return result


def test_annealing_follows_the_run_and_goes_on_when_resumed(tmp_path):
    def run():
        torch.manual_seed(0)
        data = small_run("MAML", "regression")[1]
        options = {"multi_step_share": 0.7, "first_order_share": 0.5, "inner_lr": 0.02, "inner_steps": 2}
        return Orders(input_shape=(1,), output_size=1, task_type="regression", **options), data

    save = LambdaCallback(on_train_batch_end=lambda run, *_: run.global_step == 2 and run.save_checkpoint(tmp_path / "at_2.ckpt"))
    whole, data = run()
    trainer(6, (save,)).fit(whole, data)
    assert whole.noted == [(step / 6, step < 3) for step in range(6)]
    resumed, data = run()
    trainer(6).fit(resumed, datamodule=data, ckpt_path=tmp_path / "at_2.ckpt", weights_only=False)
    assert resumed.noted == whole.noted[2:]
    assert checksum(resumed.state_dict()) == checksum(whole.state_dict())


@pytest.mark.parametrize("option", ["multi_step_share", "first_order_share"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none(option, value):
    with pytest.raises(InputError, match=f"--model.{option} is {value}; give a number from 0 to 1"):
        maml_pp(**{option: value})


def test_a_step_size_that_would_not_be_used():
    with pytest.raises(InputError, match=r"eval_inner_lr 0\.2 has no effect where step sizes are learned"):
        maml_pp(eval_inner_lr=0.2)
