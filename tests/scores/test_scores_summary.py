"""Groups of episodes and other predictors: the numbers, and where a person finds them."""

import json

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.small import algorithm_for, trainer

from app.algorithms.optimisation_based.maml import MAML
from app.scores.episode_scores import mean_and_ci95
from app.scores.summary import logged, summarise
from datamodules.gaussian_process import KERNELS, GaussianProcess
from datamodules.sinusoid import Sinusoid

SMALL = {"num_context": (2, 6), "num_target": (2, 4), "max_points": 8, "meta_batch_size": 4, "val_episodes": 5}


class _Levels(Sinusoid):
    """Episodes of two groups and of pairs that belong together, with a reference."""

    test_groups = ("even", "odd")

    def group(self, split: str, index: int) -> str:
        return self.test_groups[index // 2 % 2]

    def cluster(self, split: str, index: int) -> int:
        return index // 2

    def references(self, split: str, index: int) -> dict[str, dict[str, float]]:
        return {"zero": {"mse": 0.1 * index, "bias": -1.0}}


def rows(episodes: list[int]) -> torch.Tensor:
    """Scores (loss, mse) of two stages, of which the second is 3 times the number of the episode."""
    numbers = torch.tensor(episodes, dtype=torch.float64)
    return torch.stack([torch.stack([numbers, numbers, 2 * numbers], -1), torch.stack([numbers, numbers, 3 * numbers], -1)], 1)


def test_groups_and_references():
    episodes = [0, 1, 2, 3, 4, 5, 6, 7, 10]  # 8 and 9 are not scored
    summary = summarise(rows(episodes), ["loss", "mse"], _Levels(), "test", with_references=True)
    assert summary["num_episodes"] == 9
    assert {group: part["num_episodes"] for group, part in summary["groups"].items()} == {"even": 4, "odd": 5}
    parts = {"all": (summary, episodes), "even": (summary["groups"]["even"], [0, 1, 4, 5])}
    for part, members in parts.values():
        numbers = torch.tensor(members, dtype=torch.float64)
        for name, factors in (("loss", (1, 1)), ("mse", (2, 3))):
            mean, ci95 = mean_and_ci95(torch.stack([factor * numbers for factor in factors], -1), numbers.long() // 2)
            assert part["scores"][name] == {"mean": pytest.approx(mean.tolist()), "ci95": pytest.approx(ci95.tolist())}
        mean, ci95 = mean_and_ci95(numbers, numbers.long() // 2)
        zero = part["references"]["zero"]
        assert zero["mse"]["mean"] == pytest.approx(0.1 * mean.item())
        assert zero["mse"]["difference_mean"] == pytest.approx(2.9 * mean.item())
        assert zero["mse"]["difference_ci95"] == pytest.approx(2.9 * ci95.item())
        assert zero["bias"] == {"mean": -1.0, "ci95": 0.0}
    values = logged(summary, "test", "mse")
    assert values["test/mse_even"] == 7.5 and values["test/mse_odd"] == pytest.approx(3 * 28 / 5)
    assert {"test/mse", "test/mse_before", "test/mse_ci95", "test/mse_even_ci95", "test/loss"} <= values.keys()


def test_validation_has_neither():
    summary = summarise(rows([0, 1, 2]), ["loss", "mse"], _Levels(), "val")
    assert summary["references"] == {} and "groups" not in summary


def test_references_are_not_computed_in_training(monkeypatch):
    def references(*_):
        raise AssertionError("too early")

    data = GaussianProcess(**SMALL, test_episodes=7)
    algorithm = algorithm_for(MAML, data, inner_lr=0.01)
    monkeypatch.setattr(data, "references", references)
    trainer(2, val_check_interval=1).fit(algorithm, data)
    with pytest.raises(AssertionError, match="too early"):
        trainer().test(algorithm, datamodule=data, verbose=False)


def test_episodes_of_different_sizes_are_scored_one_by_one():
    """14 episodes in batches of 4: the same scores as each alone, in its own group."""
    data = GaussianProcess(**SMALL, test_episodes=14)
    algorithm = algorithm_for(MAML, data, inner_lr=0.05, inner_steps=2, tasks_per_chunk=3)
    run = trainer()
    run.test(algorithm, datamodule=data, verbose=False)
    params, errors = dict(algorithm.named_parameters()), []
    for episode in (data.episode("test", index) for index in range(14)):
        outputs = algorithm.predict(params, algorithm.adapt(params, episode.support_x, episode.support_y), episode.query_x)
        errors.append((outputs - episode.query_y).square().mean().item())
    evaluation = algorithm.evaluation
    assert evaluation["scores"]["mse"]["mean"][-1] == pytest.approx(np.mean(errors), rel=1e-5)
    for position, kernel in enumerate(KERNELS):
        members = [index for index in range(14) if index // 4 % 3 == position]
        group = evaluation["groups"][kernel]
        assert group["num_episodes"] == len(members)
        assert group["scores"]["mse"]["mean"][-1] == pytest.approx(np.mean([errors[index] for index in members]), rel=1e-5)
        assert run.callback_metrics[f"test/mse_{kernel}"].item() == pytest.approx(group["scores"]["mse"]["mean"][-1])
        oracle = np.mean([data.references("test", index)["oracle"]["mse"] for index in members])
        assert group["references"]["oracle"]["mse"]["mean"] == pytest.approx(oracle)


def test_report(tmp_path):
    options = [f"--data.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in SMALL.items()]
    run = ["--model.inner_lr=0.01", "--data=GaussianProcess", *options, "--data.test_episodes=24", *QUIET]
    outcome = train(*run, "--trainer.max_steps=2", "--trainer.val_check_interval=2", f"--trainer.default_root_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["groups"]) == list(KERNELS) and results["num_context"] == [2, 6]
    assert results["references"]["oracle"]["log_likelihood"]["mean"] > results["references"]["oracle"]["log_likelihood"]["ci95"]
    for part in (results, *results["groups"].values()):
        assert f"{part['mse']['mean'][-1]:.4f}" in outcome.out
        for key in ("mean", "difference_mean"):
            assert f"{part['references']['oracle']['mse'][key]:.4f}" in outcome.out
    for word in (*KERNELS, "oracle", "difference to oracle"):
        assert word in outcome.out
