"""ALFA's generated steps."""

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import NETWORKS, WAYS, random_tasks, relative_error, take

from app.algorithms.optimisation_based.alfa import ALFA


def alfa(network, **kwargs):
    """ALFA with steps that differ."""
    torch.manual_seed(0)
    options = {"input_shape": (1, 16, 16), "output_size": WAYS, "inner_lr": 0.3, "inner_steps": 2, "inner_decay": 0.2} | kwargs
    algorithm = ALFA(backbone=NETWORKS[network], **options)
    with torch.no_grad():
        for learned in algorithm.step_sizes:
            learned.mul_(1 + 0.2 * torch.randn_like(learned))
    return algorithm


def test_equals_plain_pytorch(float64):
    algorithm, episode = alfa("Conv4_stride", eval_inner_steps=3).eval(), take(random_tasks(), 0)
    net, rule = algorithm.net, algorithm.step_sizes
    weights, first, second = dict(net.named_parameters()), rule.generator[0], rule.generator[2]
    count = len(weights)
    for step, adapted in enumerate(algorithm.adaptation(dict(algorithm.named_parameters()), *episode[:2])):
        assert relative_error(adapted.weights, weights) < 1e-12
        loss = F.cross_entropy(torch.func.functional_call(net, weights, (episode.support_x,)), episode.support_y)
        slopes = torch.autograd.grad(loss, list(weights.values()))
        seen = torch.stack([tensor.mean() for tensor in (*weights.values(), *slopes)])
        hidden = (first.weight @ seen + first.bias).clamp(min=0)
        generated = second.weight @ hidden + second.bias
        row = min(step, 1)
        moved = {}
        for position, (name, slope) in enumerate(zip(weights, slopes, strict=True)):
            size = rule[0][row, position] * generated[position]
            decay = rule[1][row, position] * generated[count + position]
            moved[name] = ((1 - decay) * weights[name] - size * slope).detach().requires_grad_()
        weights = moved


@pytest.mark.parametrize("network", ["Conv4_max_pool", "MLP"])
@pytest.mark.parametrize("options", [{}, {"adapted": "head", "transductive": False}, {"checkpoint_inner_steps": True}])
def test_equals_finite_differences(float64, network, options):
    algorithm, batch = alfa(network, **options), random_tasks()
    gradient = gradient_of(algorithm, batch)
    assert difference_error(algorithm, batch, gradient) < 1e-7
    learned = [gradient[name].norm() for name in gradient if name.startswith("step_sizes")]
    assert len(learned) == 6 and min(learned) > 0


def test_steps_at_the_start_are_near_those_of_maml():
    torch.manual_seed(0)
    rule = ALFA(input_shape=(1, 16, 16), output_size=WAYS, inner_lr=0.3, inner_decay=0.01).step_sizes
    weights = {name: torch.ones(2) for name in rule.names}
    moved = rule(0, weights, {name: torch.ones(2) for name in rule.names})
    steps = torch.stack([1 - moved[name] for name in rule.names])
    assert (steps - 0.303).abs().max() < 0.3 and (steps.mean() - 0.303).abs() < 0.1
