"""Matching Networks against formulas for one query."""

import pytest
import torch
from helpers.small import WAYS, random_tasks
from torch import nn
from torch.testing import assert_close

from app.algorithms.metric_based.matching_net import MatchingNet, QueryContext, SupportContext
from app.algorithms.metric_based.protonet import ProtoNet
from app.backbones import Conv4
from app.errors import InputError

NUM_FEATURES = 5

pytestmark = pytest.mark.usefixtures("float64")


def build(cls=MatchingNet, **options):
    torch.manual_seed(0)
    backbone = lambda shape, outputs: Conv4(shape, outputs, width=NUM_FEATURES)  # noqa: E731
    return cls(input_shape=(1, 16, 16), output_size=WAYS, backbone=backbone, **options)


def features(tasks=2, rows=6):
    """Of support sets with their labels, and of queries."""
    torch.manual_seed(1)
    labels = torch.stack([torch.randperm(rows) % WAYS for _ in range(tasks)])
    return torch.randn(tasks, rows, NUM_FEATURES), labels, torch.randn(tasks, 4, NUM_FEATURES)


def outputs_of(algorithm, support, labels, queries):
    params = dict(algorithm.named_parameters())
    return algorithm.head_outputs(params, algorithm.fit_head(params, support, labels), queries)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_equals_the_formula_query_by_query(distance):
    """With several examples of a class, whose attention adds up."""
    support, labels, queries = features()
    outputs = outputs_of(build(distance=distance, scale=3.0), support, labels, queries)
    for task in range(2):
        for position, query in enumerate(queries[task]):
            kernels, total = torch.zeros(WAYS), 0.0
            for example, label in zip(support[task], labels[task].tolist(), strict=True):
                if distance == "cosine":
                    kernel = torch.exp(3 * (query @ example) / (query.norm() * example.norm()))
                else:
                    kernel = torch.exp(-((query - example) ** 2).sum())
                kernels[label] += kernel
                total += kernel
            assert_close(outputs[task, position].exp(), kernels / total, rtol=1e-10, atol=1e-14)


def test_one_shot_equals_protonet():
    """Whose prototypes are then the examples; in the logarithm of the probabilities."""
    support, labels, queries = features(rows=WAYS)
    for ours, theirs in (("cosine", "cosine"), ("l2", "euclidean")):
        matching = outputs_of(build(distance=ours), support, labels, queries)
        prototypes = outputs_of(build(ProtoNet, distance=theirs), support, labels, queries)
        assert_close(matching, prototypes.log_softmax(-1), rtol=1e-9, atol=1e-10)


def test_a_class_far_away_has_a_finite_logarithm():
    support, labels, queries = features(rows=WAYS)
    outputs = outputs_of(build(distance="l2"), 1e3 * support, labels, queries.requires_grad_())
    outputs.sum().backward()
    assert outputs.isfinite().all() and outputs.min() < -1e4 and queries.grad.isfinite().all()


def cell_with(weights):
    """A plain LSTM cell of one example: input, (hidden, memory) -> (hidden, memory)."""
    w_x, w_h, b_x, b_h = (weights[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

    def cell(x, hidden, memory):
        i, f, g, o = (w_x @ x + b_x + w_h @ hidden + b_h).chunk(4)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory

    return cell


def test_support_context_is_a_bidirectional_lstm_with_a_residual():
    """torch.nn.LSTM's, over the support set of each task alone."""
    context, (support, _, _) = SupportContext(NUM_FEATURES), features()
    lstm = nn.LSTM(NUM_FEATURES, NUM_FEATURES, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for suffix, cell in (("l0", context.ahead), ("l0_reverse", context.back)):
            for name, weight in cell.named_parameters():
                getattr(lstm, f"{name}_{suffix}").copy_(weight)
    for task in range(2):
        both, _ = lstm(support[task : task + 1])
        ahead, back = both[0].chunk(2, -1)
        assert_close(context(support)[task], support[task] + ahead + back, rtol=1e-10, atol=1e-12)


def test_query_context_equals_a_loop():
    """Vinyals et al. 2016, appendix A.1, for one query of one task, with the reading appended to the hidden state."""
    steps, (support, _, queries) = 4, features()
    context = QueryContext(NUM_FEATURES, steps)
    weights = dict(context.cell.named_parameters())
    of_input, of_reading = weights["weight_ih"].chunk(2, 1)
    cell = cell_with(weights | {"weight_ih": of_input, "weight_hh": torch.cat([weights["weight_hh"], of_reading], 1)})
    for task in range(2):
        for position, query in enumerate(queries[task]):
            hidden, memory = query, torch.zeros(NUM_FEATURES)
            for _ in range(steps):
                attention = torch.stack([hidden @ example for example in support[task]]).exp()
                reading = sum(a * example for a, example in zip(attention / attention.sum(), support[task], strict=True))
                output, memory = cell(query, torch.cat([hidden, reading]), memory)
                hidden = output + query
            assert_close(context(queries, support)[task, position], hidden, rtol=1e-10, atol=1e-12)


def test_full_context_embeds_before_it_matches():
    support, labels, queries = features()
    algorithm = build(full_context=True, read_steps=2)
    in_context = algorithm.support_context(support)
    expected = outputs_of(build(), in_context, labels, algorithm.query_context(queries, in_context))
    assert_close(outputs_of(algorithm, support, labels, queries), expected, rtol=1e-12, atol=1e-12)
    assert (expected - outputs_of(build(), support, labels, queries)).abs().max() > 1e-2


def test_every_weight_of_the_context_learns():
    algorithm, batch = build(full_context=True, read_steps=2), random_tasks()
    gradient, _ = algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)
    assert all(slope.abs().max() > 0 for name, slope in gradient.items() if "context" in name)


@pytest.mark.parametrize(("option", "value"), [("scale", 0.0), ("scale", float("nan")), ("read_steps", 0)])
def test_a_number_that_cannot_be(option, value):
    with pytest.raises(InputError, match=f"--model.{option} is {value}; give "):
        build(**{option: value})
