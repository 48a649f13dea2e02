"""TaskBatchNorm against batch normalisation."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from app.backbones.rows import Rows
from app.backbones.task_batch_norm import TaskBatchNorm, take_statistics, update_running_statistics

SHAPES = [(6, 3), (6, 3, 5), (6, 3, 4, 5)]


def norm_and_rows(shape=(6, 3, 4, 5), dtype=torch.float64):
    torch.manual_seed(0)
    norm = TaskBatchNorm(shape[1]).to(torch.promote_types(dtype, torch.float32))
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    return norm, (5 * torch.randn(shape, dtype=torch.float64) + 3).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_batch_norm(shape):
    norm, x = norm_and_rows(shape)
    x.requires_grad_()
    inputs = [x, norm.weight, norm.bias]
    expected = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    actual = norm(x)
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(x)
    for one, other in zip(*(torch.autograd.grad(y, inputs, direction) for y in (actual, expected)), strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_second_order_gradients(shape):
    norm, x = norm_and_rows(shape)
    assert torch.autograd.gradgradcheck(lambda x, weight, bias: norm(x), (x.requires_grad_(), norm.weight, norm.bias))


def test_starts_as_a_plain_normalisation_and_has_no_running_statistics():
    norm = TaskBatchNorm(3)
    x = 5 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 3
    y = norm(x)
    assert_close(y.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    assert_close(y.var(0, correction=0), torch.ones(3), rtol=0, atol=1e-5)
    assert torch.equal(norm.eval()(x), y)
    assert set(norm.state_dict()) == {"weight", "bias"}


def test_statistics_of_the_first_rows():
    norm, x = norm_and_rows()
    first = x[:4]
    mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3), correction=0)
    expected = F.batch_norm(x, mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps)
    with Rows(reference=4):
        assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)
    assert (norm(x) - expected).abs().max() > 0.1


def test_statistics_of_the_first_rows_make_the_others_independent():
    norm, x = norm_and_rows()
    changed = x.clone()
    changed[5] += 100
    with Rows(reference=4):
        assert torch.equal(norm(changed)[:5], norm(x)[:5])
        assert_close(norm(x[[0, 1, 2, 3, 5]])[4], norm(x)[5], rtol=1e-14, atol=1e-14)
    assert not torch.equal(norm(changed)[:5], norm(x)[:5])


def test_what_the_rows_are_ends_with_its_block():
    norm, x = norm_and_rows()
    expected = norm(x)
    with Rows(reference=4):
        inside = norm(x)
        with Rows(reference=2):
            assert not torch.equal(norm(x), inside)
        assert torch.equal(norm(x), inside)
    with pytest.raises(KeyError), Rows(reference=4):
        raise KeyError
    assert torch.equal(norm(x), expected)


def test_statistics_of_bfloat16_are_float32():
    norm, x = norm_and_rows((64, 3, 8, 8), torch.bfloat16)
    x = x + 40  # bfloat16 has a step of 0.25 here: sums in it would lose the mean
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), norm(x.float()).to(torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x), norm(x.float()).to(torch.bfloat16))


def test_folded_tasks_are_normalised_alone():
    norm, x = norm_and_rows((6, 3, 4, 5))
    expected = torch.cat([norm(x[:3]), norm(x[3:])])
    with Rows(num_tasks=2):
        together = norm(x)
    assert_close(together, expected, rtol=1e-12, atol=1e-12)
    assert (norm(x) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("chunks", [1, 2])
def test_running_statistics_are_those_of_batch_norm(chunks):
    """Whose statistics of one batch are here the mean over the tasks."""
    norm, x = norm_and_rows((6, 3, 4, 5))
    norm.keep_running_statistics(used=True)
    means, variances = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    for task, rows in enumerate(x.chunk(2)):
        F.batch_norm(rows, means[task], variances[task], training=True)
    for rows in x.chunk(chunks):
        with Rows(num_tasks=2 // chunks):
            norm(rows)
    update_running_statistics(norm, take_statistics(norm))
    assert_close(norm.running_mean, means.mean(0), rtol=1e-12, atol=1e-12)
    assert_close(norm.running_var, variances.mean(0), rtol=1e-12, atol=1e-12)
    expected = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    assert_close(norm.eval()(x), expected, rtol=1e-12, atol=1e-12)


def test_running_statistics_that_are_kept_but_not_used():
    norm, x = norm_and_rows()
    expected = norm(x)
    norm.keep_running_statistics(used=False)
    assert torch.equal(norm.eval()(x), expected)
    assert norm.seen == []
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}


def test_one_value_of_a_task():
    norm, x = norm_and_rows((2, 3))
    with Rows(num_tasks=2):
        assert torch.equal(norm(x), norm.bias.expand(2, 3))
