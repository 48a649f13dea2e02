"""Relation Networks against pairs of maps that are put one behind the other."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.small import WAYS, Blots, algorithm_for, random_tasks, take, trainer
from torch.testing import assert_close

from app.algorithms.metric_based.relation_net import RelationModule, RelationNet
from app.backbones import MLP, Conv4, ResNet12
from app.errors import InputError

BACKBONES = {
    "Conv4": partial(Conv4, width=4, downsample="max_pool", num_halvings=2),
    "one pixel": partial(Conv4, width=4),
    "ResNet12": partial(ResNet12, width=2),
}


def build(backbone="Conv4", **options):
    torch.manual_seed(0)
    algorithm = RelationNet(input_shape=(1, 16, 16), output_size=WAYS, backbone=BACKBONES[backbone], **options)
    return algorithm


def plain_scores(module, queries, classes):
    """Of one task: every pair through the layers, torch's own batch normalisation over all of them."""
    pairs = torch.stack([torch.cat([query, of_class]) for query in queries for of_class in classes])
    x = module.compare(pairs)
    for layer in module.score:
        if hasattr(layer, "eps"):
            x = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)
        else:
            x = layer(x)
    return x.view(len(queries), len(classes))


@pytest.mark.parametrize("map_shape", [(3, 4, 4), (3, 5, 7), (2, 2, 2), (4, 1, 1), (2, 1, 3)])
def test_scores_of_pairs(float64, map_shape):
    torch.manual_seed(0)
    module = RelationModule(map_shape, hidden_size=8)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    queries, classes = torch.randn(2, 5, *map_shape), torch.randn(2, WAYS, *map_shape)
    expected = torch.stack([plain_scores(module, *maps) for maps in zip(queries, classes, strict=True)])
    assert_close(module(queries, classes), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_whole_method_of_one_task(float64, backbone):
    """In training: maps of support set and queries in one batch, sums of the shots' maps, squared error of the sigmoid."""
    algorithm, (support_x, support_y, query_x, query_y) = build(backbone), take(random_tasks(), 0)
    maps = algorithm.net(torch.cat([support_x, query_x]))
    assert maps.shape[1:] == algorithm.net.map_shape
    support, queries = maps.split([len(support_x), len(query_x)])
    classes = torch.stack([sum(m for m, y in zip(support, support_y, strict=True) if y == way) for way in range(WAYS)])
    scores = plain_scores(algorithm.relation, queries, classes).sigmoid()
    loss, metrics = algorithm.task_loss(dict(algorithm.named_parameters()), take(random_tasks(), 0))
    assert_close(loss, (scores - torch.eye(WAYS)[query_y]).square().mean(), rtol=1e-9, atol=1e-12)
    assert metrics["accuracy"] == (scores.argmax(-1) == query_y).to(torch.float64).mean()


def test_cross_entropy_is_of_the_scores_before_the_sigmoid(float64):
    params = dict(build().named_parameters())
    batch = random_tasks()
    scores, logits = (
        algorithm.predict_tasks(params, algorithm.adapt_tasks(params, *batch[:2]), batch.query_x)
        for algorithm in (build(), build(outer_loss="cross_entropy"))
    )
    assert_close(scores, logits.sigmoid(), rtol=1e-12, atol=1e-12)


def test_the_relation_module_keeps_running_statistics():
    data = Blots(ways=3, shots=2, queries=2, meta_batch_size=2, val_episodes=2, test_episodes=2)
    algorithm = algorithm_for(RelationNet, data, backbone=BACKBONES["Conv4"])
    trainer(2).fit(algorithm, data)
    means = [tensor for name, tensor in algorithm.state_dict().items() if name.startswith("relation.") and "running_mean" in name]
    assert len(means) == 2 and all(tensor.abs().max() > 0 for tensor in means)
    assert all(not norm.seen for norm in algorithm.modules() if hasattr(norm, "seen"))


def test_the_default_backbone_is_the_paper_s():
    algorithm = RelationNet(input_shape=(1, 28, 28), output_size=5)
    assert algorithm.net.map_shape == (64, 5, 5)
    assert algorithm.net(torch.zeros(2, 1, 28, 28)).shape == (2, 64, 5, 5)
    for module in algorithm.relation.modules():
        if isinstance(module, torch.nn.Linear):
            assert (module.bias == 1).all() and module.weight.abs().max() < 0.06


def test_wrong_options():
    with pytest.raises(InputError, match=r"compares feature maps, and --model.backbone MLP has none; choose Conv4 or ResNet12"):
        RelationNet(input_shape=(4,), output_size=5, backbone=MLP)
    with pytest.raises(InputError, match=r"--model.hidden_size is 0; give at least 1"):
        build(hidden_size=0)
