"""Heads for any number of classes: one vector repeated (UNICORN), and prototypes (ProtoMAML)."""

from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import METHODS, NETWORKS, WAYS, Blots, algorithm_for, random_tasks, relative_error, take, trainer
from torch.func import functional_call

from app.algorithms.metric_based.protonet import ProtoNet
from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.maml_pp import MAMLPP
from app.algorithms.optimisation_based.meta_curvature import MetaCurvature
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.algorithms.optimisation_based.proto_maml import ProtoMAML
from app.algorithms.optimisation_based.unicorn import UNICORN
from app.backbones.rows import Rows
from app.errors import InputError
from datamodules.sinusoid import Sinusoid

STARTS = ["repeated", "prototypes"]
INNER_LR, STEPS = 0.4, 2
KIN = {
    "MAML": partial(MAML, inner_lr=INNER_LR),
    "MetaSGD": partial(MetaSGD, step_size_range=(0.1, INNER_LR)),
    "MAMLPP": partial(MAMLPP, inner_lr=INNER_LR, multi_step_share=0.0),
    "MetaCurvature": partial(MetaCurvature, inner_lr=INNER_LR, curvature="diagonal_kronecker"),
    "ANIL": partial(MAML, inner_lr=INNER_LR, adapted="head"),
}
each_start = pytest.mark.parametrize("start", STARTS)


def started(start, method="MAML", network="MLP_norms", ways=WAYS, **options):
    torch.manual_seed(0)
    options = {"backbone": NETWORKS[network], "inner_steps": STEPS} | options
    return KIN[method](input_shape=(1, 16, 16), output_size=ways, head_start=start, **options)


@each_start
@pytest.mark.parametrize(("method", "network"), [*product(KIN, ["MLP_norms"]), ("MAML", "Conv4_stride")])
def test_equals_finite_differences(float64, start, method, network):
    algorithm, batch = started(start, method, network), random_tasks()
    gradient = gradient_of(algorithm, batch)
    assert difference_error(algorithm, batch, gradient) < 1e-7
    assert ("net.head.weight" in gradient) == (start == "repeated") and "net.head.bias" not in gradient


def plain_loss(algorithm, episode, start, first_order):
    """The outer loss of one task by torch.autograd, the head written out."""
    weights = dict(algorithm.net.body.named_parameters())

    def body(weights, x):
        return functional_call(algorithm.net.body, weights, (x,))

    if start == "repeated":
        head = [torch.stack([algorithm.net.head.weight[0]] * WAYS), torch.zeros(WAYS)]
    else:
        features = body(weights, episode.support_x)
        means = torch.stack([features[episode.support_y == number].mean(0) for number in range(WAYS)])
        head = [2 * means, -(means * means).sum(1)]
    state = [*weights.values(), *head]
    for _ in range(STEPS):
        at = [(tensor.detach() if first_order else 1 * tensor).requires_grad_() for tensor in state]
        logits = F.linear(body(dict(zip(weights, at, strict=False)), episode.support_x), *at[-2:])
        slopes = torch.autograd.grad(F.cross_entropy(logits, episode.support_y), at, create_graph=not first_order)
        state = [tensor - INNER_LR * slope for tensor, slope in zip(state if first_order else at, slopes, strict=True)]
    logits = F.linear(body(dict(zip(weights, state, strict=False)), episode.query_x), *state[-2:])
    return F.cross_entropy(logits, episode.query_y)


@each_start
@pytest.mark.parametrize("first_order", [False, True])
def test_equals_plain_pytorch(float64, start, first_order):
    algorithm, batch = started(start, first_order=first_order), random_tasks()
    params = dict(algorithm.named_parameters())
    losses = [plain_loss(algorithm, take(batch, task), start, first_order) for task in range(len(batch.query_x))]
    expected = torch.autograd.grad(sum(losses) / len(losses), list(params.values()))
    assert relative_error(gradient_of(algorithm, batch), dict(zip(params, expected, strict=True))) < 1e-12


def test_before_the_first_step_it_is_a_prototypical_network(float64):
    algorithm, episode = started("prototypes", transductive=False).eval(), take(random_tasks(), 0)
    before = next(algorithm.adaptation(dict(algorithm.named_parameters()), episode.support_x, episode.support_y))
    actual = algorithm.predict({}, before, episode.query_x).softmax(-1)
    with Rows(reference=len(episode.support_x)):
        features = algorithm.net.body(torch.cat([episode.support_x, episode.query_x]))
    support, queries = features.split([len(episode.support_x), len(episode.query_x)])
    proto = ProtoNet(input_shape=(1, 16, 16), output_size=WAYS, backbone=NETWORKS["MLP"]).eval()
    prototypes = proto.fit_head({}, support[None], episode.support_y[None])
    expected = proto.head_outputs({}, prototypes, queries[None])[0].softmax(-1)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)


def test_the_first_step_from_a_repeated_vector_changes_the_head_alone(float64):
    algorithm, episode = started("repeated"), take(random_tasks(), 0)
    params = dict(algorithm.named_parameters())
    before, first, second = algorithm.adaptation(params, episode.support_x, episode.support_y)
    body = [name for name in before.weights if name.startswith("body.")]
    assert all((before.weights[name] - first.weights[name]).abs().max() < 1e-15 for name in body)
    assert all(not torch.allclose(second.weights[name], first.weights[name]) for name in body if name.endswith("weight"))
    assert before.weights["head.weight"].shape[0] == WAYS and before.weights["head.weight"].std(0).max() == 0


@each_start
@pytest.mark.parametrize("method", KIN)
def test_the_order_of_the_classes_does_not_matter(float64, start, method):
    algorithm, episode = started(start, method).eval(), take(random_tasks(), 0)
    params, order = dict(algorithm.named_parameters()), torch.tensor([2, 0, 1])
    outputs, permuted = (
        algorithm.predict(params, algorithm.adapt(params, episode.support_x, labels), episode.query_x)
        for labels in (episode.support_y, order[episode.support_y])
    )
    torch.testing.assert_close(permuted[:, order], outputs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["UNICORN", "ProtoMAML"])
def test_ways_that_change_in_training_and_are_others_at_test(method):
    sizes = {"ways": 7, "train_ways": (2, 4), "shots": 2, "train_shots": (1, 3), "queries": 2}
    data = Blots(**sizes, meta_batch_size=3, val_episodes=2, test_episodes=4)
    data.setup()
    algorithm = algorithm_for(METHODS[method][0], data, backbone=NETWORKS["Conv4_stride"], inner_steps=2)
    seen = []
    plain = algorithm.losses
    algorithm.losses = lambda params, batch, first=0: seen.append(batch) or plain(params, batch, first)
    run = trainer(8)
    run.fit(algorithm, data)
    training = [batch for batch in seen if len(batch.support_y) == 3]
    ways = [int(batch.support_y.max()) + 1 for batch in training]
    shots = [batch.support_x.shape[1] // number for batch, number in zip(training, ways, strict=True)]
    assert set(ways) == {2, 3, 4} and set(shots) == {1, 2, 3}
    assert all(batch.query_y.shape == (3, 2 * number) for batch, number in zip(training, ways, strict=True))
    (found,) = run.test(algorithm, data, verbose=False)
    assert 1 / 7 < found["test/accuracy"] <= 1


def test_what_has_no_meaning_is_refused():
    with pytest.raises(InputError, match="head_start repeated has the same vector for each class"):
        started("repeated", adapted="body")
    started("prototypes", adapted="body")
    with pytest.raises(InputError, match="head_start prototypes is for classes"):
        algorithm_for(MAML, Sinusoid(), head_start="prototypes")
    data = Blots(ways=4, train_ways=(2, 4), shots=1, queries=1)
    with pytest.raises(InputError, match=r"train_ways \[2,4\] draws another number of classes for every step, and MAML's head"):
        algorithm_for(MAML, data).check_data(data)
    algorithm_for(UNICORN, data).check_data(data)
    algorithm_for(ProtoMAML, data).check_data(data)
