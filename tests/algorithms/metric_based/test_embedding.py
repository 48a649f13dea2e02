"""Methods that compare examples by the features of one embedding network."""

from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.small import METHODS as ALL_METHODS
from helpers.small import WAYS, Blots, algorithm_for, flat, random_tasks, trainer
from torch import nn
from torch.testing import assert_close

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.protonet import ProtoNet
from app.backbones import Conv4, Identity, ResNet12
from app.backbones.task_batch_norm import TaskBatchNorm
from app.episode import Episode

METHODS = {name: method for name, method in ALL_METHODS.items() if issubclass(method[0], EmbeddingAlgorithm)}
each_method = pytest.mark.parametrize("method", METHODS)


def build(method: str, **options) -> EmbeddingAlgorithm:
    torch.manual_seed(0)
    cls, fixed = METHODS[method]
    backbone = partial(Conv4, width=8)
    algorithm = cls(**{"input_shape": (1, 16, 16), "output_size": WAYS, "backbone": backbone} | fixed | options)
    return algorithm


OPTIONS = [{"learns_scale": True}, {"norm_statistics": "step"}, {"norm_statistics": "halves"}]


@pytest.mark.parametrize(("method", "options"), [*((method, {}) for method in METHODS), *(("ProtoNet", one) for one in OPTIONS)])
def test_outer_gradient_equals_finite_differences(float64, method, options):
    """Along the direction of the gradient, where the slope is the gradient's norm."""
    algorithm, batch = build(method, **options), random_tasks()
    params = {name: weight.detach().clone() for name, weight in algorithm.named_parameters()}
    gradient, _ = algorithm.outer_gradient({name: weight.requires_grad_() for name, weight in params.items()}, batch)
    norm, step = flat(gradient).norm(), 1e-6

    def loss(sign: int) -> torch.Tensor:
        return algorithm.losses({name: params[name] + sign * step * gradient[name] / norm for name in params}, batch)[0].mean()

    with torch.no_grad():
        assert_close((loss(1) - loss(-1)) / (2 * step), norm, rtol=1e-6, atol=0)


@pytest.mark.slow
@each_method
@pytest.mark.parametrize("training", [True, False])
def test_tasks_do_not_influence_each_other(float64, method, training):
    algorithm, batch = build(method).train(training), random_tasks(tasks=3)
    params = dict(algorithm.named_parameters())
    together, metrics = algorithm.losses(params, batch)
    for task in range(3):
        alone, numbers = algorithm.losses(params, Episode(*(tensor[task, None] for tensor in batch)), task)
        assert_close(together[task], alone[0], rtol=1e-10, atol=1e-12)
        assert metrics["accuracy"][task] == numbers["accuracy"][0]


@pytest.mark.slow
@each_method
def test_more_ways_in_training_than_in_evaluation(method):
    data = Blots(ways=3, train_ways=6, shots=2, queries=2, meta_batch_size=2, val_episodes=3, test_episodes=3)
    cls, fixed = METHODS[method]
    algorithm = algorithm_for(cls, data, backbone=partial(Conv4, width=4), **fixed)
    run = trainer(2)
    run.fit(algorithm, data)
    run.test(algorithm, datamodule=data, verbose=False)
    assert run.global_step == 2 and algorithm.evaluation["num_episodes"] == 3


def test_running_statistics_are_used_in_evaluation_unless_it_is_transductive():
    data = Blots(ways=3, shots=2, queries=2, meta_batch_size=2, val_episodes=2, test_episodes=2)
    algorithm = algorithm_for(ProtoNet, data, backbone=partial(Conv4, width=4))
    trainer(5).fit(algorithm, data)
    state = algorithm.state_dict()
    assert any("running_mean" in name and tensor.abs().sum() > 0 for name, tensor in state.items())
    transductive = algorithm_for(ProtoNet, data, transductive=True, backbone=partial(Conv4, width=4))
    transductive.load_state_dict(state)
    batch = random_tasks()
    outputs = []
    for method in (algorithm.eval(), transductive.eval()):
        params = dict(method.named_parameters())
        outputs.append(method.predict_tasks(params, method.adapt_tasks(params, *batch[:2]), batch.query_x))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_protonet_is_a_linear_classifier(float64):
    """Snell et al. 2017, section 2.4: weights twice the prototype, bias minus its square, but for a constant of the query."""
    algorithm, batch = build("ProtoNet"), random_tasks()
    features, queries = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    prototypes = algorithm.fit_head({}, features, batch.support_y)
    tasks = zip(features, batch.support_y, strict=True)
    expected = torch.stack([torch.stack([rows[labels == way].mean(0) for way in range(WAYS)]) for rows, labels in tasks])
    assert_close(prototypes, expected, rtol=1e-12, atol=1e-12)
    logits = algorithm.head_outputs({}, prototypes, queries)
    assert_close(logits, -(queries[:, :, None] - expected[:, None]).square().sum(-1), rtol=1e-10, atol=1e-10)
    linear = torch.stack([F.linear(q, 2 * p, -p.square().sum(-1)) for q, p in zip(queries, expected, strict=True)])
    assert_close(logits.log_softmax(-1), linear.log_softmax(-1), rtol=1e-10, atol=1e-10)


def test_protonet_by_the_cosine(float64):
    algorithm = build("ProtoNet", distance="cosine", scale=7.0)
    prototypes, queries = torch.randn(2, 3, 5), torch.randn(2, 4, 5)
    expected = 7 * F.cosine_similarity(queries[:, :, None], prototypes[:, None], dim=-1)
    assert_close(algorithm.head_outputs({}, prototypes, queries), expected, rtol=1e-12, atol=1e-12)


def test_statistics_of_a_step_at_once_or_of_its_halves():
    """As batch normalisation has them in one batch of all tasks, or in one of all support sets and one of all queries."""
    batch = random_tasks(tasks=3)
    for how in ("step", "halves"):
        algorithm = build("ProtoNet", norm_statistics=how, tasks_per_chunk=1)
        plain = nn.Sequential(*(plain_norm(layer) for layer in deepcopy(algorithm.net).body))
        rows = [batch.support_x, batch.query_x] if how == "halves" else [torch.cat([batch.support_x, batch.query_x], 1)]
        features = torch.cat([plain(part.flatten(0, 1)).unflatten(0, part.shape[:2]) for part in rows], 1)
        support, queries = features.split([batch.support_x.shape[1], batch.query_x.shape[1]], 1)
        expected = algorithm.head_outputs({}, algorithm.fit_head({}, support, batch.support_y), queries)
        params = dict(algorithm.named_parameters())
        assert_close(algorithm.query_outputs(params, batch), expected, rtol=1e-4, atol=1e-5)
        algorithm.keep_statistics(algorithm.outcome(params, batch).statistics)
        norm, seen = next(layer for layer in algorithm.net.body if isinstance(layer, TaskBatchNorm)), []
        for part in rows:
            maps = algorithm.net.body[0](part.flatten(0, 1))
            seen.append(maps.mean((0, 2, 3)))
        assert_close(norm.running_mean, 0.1 * torch.stack(seen).mean(0), rtol=1e-4, atol=1e-6)


def test_meta_baseline_is_the_cosine_with_a_learned_scale():
    algorithm, plain, batch = build("MetaBaseline"), build("ProtoNet", distance="cosine", scale=10.0), random_tasks()
    params = dict(algorithm.named_parameters())
    assert params["scale"] == 10.0
    assert_close(algorithm.query_outputs(params, batch), plain.query_outputs(dict(plain.named_parameters()), batch))


def plain_norm(layer: nn.Module) -> nn.Module:
    return nn.BatchNorm2d(len(layer.bias)) if isinstance(layer, TaskBatchNorm) else layer


def test_a_scale_that_is_learned():
    for options, start in (({}, 1.0), ({"distance": "cosine", "scale": 7.0}, 7.0)):
        algorithm, fixed = build("ProtoNet", learns_scale=True, **options), build("ProtoNet", **options)
        params, batch = dict(algorithm.named_parameters()), random_tasks()
        assert params["scale"] == start and "scale" not in dict(fixed.named_parameters()) and "scale" not in fixed.state_dict()
        outputs = algorithm.query_outputs(params, batch)
        assert_close(outputs, fixed.query_outputs(params, batch))
        assert_close(algorithm.query_outputs(params | {"scale": torch.tensor(3.0)}, batch), outputs * 3 / start)


def test_a_scale_at_the_answers_is_that_of_the_features_squared(float64):
    scaled = build("ProtoNet", backbone=partial(Identity, scale=3.0))
    plain = build("ProtoNet", backbone=partial(Identity, scale=None), scale=9.0, learns_scale=True)
    params, batch = dict(plain.named_parameters()), random_tasks()
    assert list(params) == ["scale"]
    outputs = scaled.query_outputs(dict(scaled.named_parameters()), batch)
    probabilities = plain.query_outputs(params, batch).softmax(-1)
    assert_close(outputs.softmax(-1), probabilities)
    (slope,) = plain.outer_gradient(params, batch)[0].values()
    (slope_of_features,) = scaled.outer_gradient(dict(scaled.named_parameters()), batch)[0].values()
    assert_close(slope_of_features, 2 * 3.0 * slope)


def test_what_is_dropped_of_queries_is_not_what_is_dropped_of_the_support_set():
    network = partial(ResNet12, width=4, drop_rate=0.5)
    algorithm, batch = build("ProtoNet", backbone=network, norm_statistics="halves"), random_tasks()
    support, queries = algorithm.embed_both(dict(algorithm.named_parameters()), batch.support_x, batch.support_x)
    assert not torch.equal(support, queries)
    algorithm.eval()
    support, queries = algorithm.embed_both(dict(algorithm.named_parameters()), batch.support_x, batch.support_x)
    assert_close(support, queries)
