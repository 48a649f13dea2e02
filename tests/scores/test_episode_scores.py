"""Means and confidence intervals against numpy."""

import math

import numpy as np
import pytest
import torch

from app.scores.episode_scores import EpisodeScores, mean_and_ci95


@pytest.mark.parametrize("episodes", [2, 3, 600])
def test_mean_and_interval_equal_numpy(episodes):
    scores = np.random.default_rng(0).random((episodes, 4))
    mean, ci95 = mean_and_ci95(torch.from_numpy(scores))
    assert mean.tolist() == pytest.approx(scores.mean(0), rel=1e-14)
    assert ci95.tolist() == pytest.approx(1.96 * scores.std(0, ddof=1) / math.sqrt(episodes), rel=1e-12)


def test_interval_by_hand():
    mean, ci95 = mean_and_ci95(torch.tensor([[1.0], [2.0], [3.0], [6.0]], dtype=torch.float64))
    assert mean.tolist() == [3.0]
    assert ci95.tolist() == pytest.approx([1.96 * math.sqrt(14 / 3) / 2], rel=1e-14)


def test_one_episode_has_no_interval():
    mean, ci95 = mean_and_ci95(torch.tensor([[0.25, 0.5]], dtype=torch.float64))
    assert mean.tolist() == [0.25, 0.5] and ci95.isnan().all()


def test_interval_of_clusters_is_that_of_their_means():
    """Where all clusters have one size."""
    scores = np.random.default_rng(0).normal(size=(12, 5, 1)) + np.random.default_rng(1).normal(size=(12, 1, 3))
    clusters = torch.arange(12).repeat_interleave(5) * 7 - 3
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    mean, ci95 = mean_and_ci95(torch.from_numpy(scores).view(60, 3)[order], clusters[order])
    means = scores.mean(1)
    assert mean.tolist() == pytest.approx(means.mean(0), rel=1e-12)
    assert ci95.tolist() == pytest.approx(1.96 * means.std(0, ddof=1) / math.sqrt(12), rel=1e-12)


def test_one_cluster_has_no_interval():
    mean, ci95 = mean_and_ci95(torch.tensor([[1.0], [2.0]]), torch.tensor([4, 4]))
    assert mean.tolist() == [1.5] and ci95.isnan().all()


def test_interval_covers_the_mean_in_95_of_100_samples():
    scores = torch.from_numpy(np.random.default_rng(0).normal(3.0, 2.0, (100, 4000)))
    mean, ci95 = mean_and_ci95(scores)
    covered = ((mean - 3.0).abs() <= ci95).double().mean().item()
    assert covered == pytest.approx(0.947, abs=0.012)  # 1.96 of Student's t with 99 degrees of freedom, 3.4 standard errors


def test_scores_are_kept_in_order_and_in_float64():
    batches = [torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(count)) for count in (4, 4, 1)]
    metric = EpisodeScores()
    for batch in batches:
        metric.update(batch.requires_grad_())
    scores = metric.compute()
    assert scores.dtype == torch.float64 and not scores.requires_grad
    assert torch.equal(scores, torch.cat(batches).detach().double())


def test_reset_forgets():
    metric = EpisodeScores()
    metric.update(torch.ones(2, 1))
    metric.reset()
    metric.update(torch.zeros(3, 1))
    assert metric.compute().tolist() == [[0.0], [0.0], [0.0]]


def test_ranks_are_joined_in_their_order():
    whole = torch.arange(10.0, dtype=torch.float64).view(5, 2)
    ranks = [whole[:2], whole[2:]]
    metric = EpisodeScores()
    metric.update(ranks[0])
    metric.dist_sync_fn = lambda tensor, group: ranks
    metric.distributed_available_fn = lambda: True
    assert torch.equal(metric.compute(), whole)
