"""FEAT: its transformer, its regulariser, and what it drops."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.small import WAYS, random_tasks
from torch import nn
from torch.testing import assert_close

from app.algorithms.metric_based.feat import FEAT, SetTransformer
from app.backbones import Conv4
from app.errors import InputError


def build(**options) -> FEAT:
    torch.manual_seed(0)
    return FEAT(input_shape=(1, 16, 16), output_size=WAYS, backbone=partial(Conv4, width=8), **options)


def test_the_transformer_is_torchs_attention_with_one_head(float64):
    torch.manual_seed(0)
    own, torchs = SetTransformer(6), nn.MultiheadAttention(6, 1, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([own.queries.weight, own.keys.weight, own.values.weight]))
        torchs.in_proj_bias.zero_()
        torchs.out_proj.weight.copy_(own.out.weight)
        torchs.out_proj.bias.copy_(own.out.bias)
    sets = torch.randn(3, 5, 6)
    expected = F.layer_norm(sets + torchs(sets, sets, sets)[0], (6,), own.norm.weight, own.norm.bias)
    assert_close(own(sets), expected, rtol=1e-10, atol=1e-12)
    order = torch.randperm(5)
    assert_close(own(sets[:, order]), own(sets)[:, order], rtol=1e-10, atol=1e-12)  # a set has no order


def test_the_loss_by_loops(float64):
    """As the authors' program computes it, one task and one example after the other."""
    options = {"temperature": 7.0, "contrastive_weight": 0.3, "contrastive_temperature": 5.0}
    algorithm, batch = build(attention_drop_rate=0.0, drop_rate=0.0, **options), random_tasks()
    params = dict(algorithm.named_parameters())
    found, metrics = algorithm.losses(params, batch)
    support, queries = algorithm.embed_both(params, batch.support_x, batch.query_x)
    net = algorithm.transformer
    for task in range(2):
        of_class = [support[task][batch.support_y[task] == way] for way in range(WAYS)]
        prototypes = net(torch.stack([rows.mean(0) for rows in of_class]))
        logits = -torch.cdist(queries[task], prototypes).square() / 7.0
        rows, labels = torch.cat([support[task], queries[task]]), torch.cat([batch.support_y[task], batch.query_y[task]])
        centres = torch.stack([net(rows[labels == way]).mean(0) for way in range(WAYS)])
        contrastive = F.cross_entropy(-torch.cdist(rows, centres).square() / 5.0, labels)
        expected = F.cross_entropy(logits, batch.query_y[task]) + 0.3 * contrastive
        assert_close(found[task], expected, rtol=1e-9, atol=1e-12)
        assert_close(metrics["contrastive_loss"][task], contrastive, rtol=1e-9, atol=1e-12)


def test_what_is_dropped_follows_from_the_task():
    algorithm, batch = build(), random_tasks()
    params = dict(algorithm.named_parameters())
    first, again, other = (algorithm.losses(params, batch, number)[0] for number in (0, 0, 5))
    assert torch.equal(first, again) and not torch.equal(first, other)
    evaluated = [algorithm.eval().losses(params, batch, number)[0] for number in (0, 5)]
    assert torch.equal(*evaluated)


@pytest.mark.parametrize("option", ["attention_drop_rate", "drop_rate"])
def test_a_rate_is_below_one(option):
    with pytest.raises(InputError, match=rf"--model.{option} is 1.0; give a number from 0 to below 1"):
        build(**{option: 1.0})
