"""Every regression method on a data set, and every regression data set, both found by themselves, and the pictures of them."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small import METHODS, build, in_turn, method_for, trainer
from torch import Tensor, nn

import datamodules  # noqa: F401
from app.backbones import MLP, BackboneCallable
from app.inner_loop.params import Params
from app.learners.learner import concrete_subclasses
from app.learners.meta_algorithm import MetaAlgorithm
from callbacks.pictures.completed_images import CompletedImages
from callbacks.pictures.episode_gallery import EpisodeGallery
from callbacks.test_report import TestReport
from datamodules.base.episodic import EpisodicDataModule
from datamodules.csv_regression import CsvRegression
from datamodules.gaussian_process import GaussianProcess

DATA = {
    cls.__name__: cls
    for cls in concrete_subclasses(EpisodicDataModule)
    if cls.__module__.startswith("datamodules.") and cls.task_type == "regression"
}
REGRESSION = [name for name, (cls, _) in METHODS.items() if "regression" in cls.task_types]


class _Smoother(MetaAlgorithm):
    """The context's mean, weighted by the distance, with a learned width and standard deviation."""

    task_types = ("regression",)

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        return nn.ParameterDict({"log_width": torch.zeros(()), "log_std": torch.zeros(())})

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> tuple[Tensor, Tensor]:
        return support_x, support_y

    def predict(self, params: Params, adapted: tuple[Tensor, Tensor], query_x: Tensor) -> Tensor:
        support_x, support_y = adapted
        distance = (query_x[:, None] - support_x).square().sum(-1)
        mean = torch.softmax(-distance / self.net_params(params)["log_width"].exp(), -1) @ support_y
        return torch.cat([mean, self.net_params(params)["log_std"].exp().expand_as(mean)], -1)

    @property
    def score_name(self) -> str:
        return "log_likelihood"

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mean, std = outputs.chunk(2, -1)
        return (-0.5 * ((targets - mean) / std).square() - std.log() - 0.5 * np.log(2 * np.pi)).mean()

    def loss_function(self, option: str, name: str | None):
        return lambda outputs, targets: -self.score(outputs, targets)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = [("task", "x", "y"), *((task, point, point * task) for task in range(10) for point in range(8))]
    path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    return path


def small_data(name: str, table: Path) -> EpisodicDataModule:
    sizes = {"shots": 3, "queries": 3, "num_context": (2, 4), "num_target": (1, 3), "max_points": 6}
    episodes = {"meta_batch_size": 2, "val_episodes": 3, "test_episodes": 7}
    data = build(DATA[name], {"path": str(table), "task": "task", "x": "x", "y": "y", **sizes, **episodes})
    data.setup()
    data.check()
    return data


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), in_turn(REGRESSION, [*DATA]))
def test_every_method_and_every_data_set(method, name, table, tmp_path):
    data = small_data(name, table)
    algorithm = method_for(method, data, backbone=partial(MLP, hidden_sizes=(6, 5)), inner_lr=0.01, inner_steps=2)
    before = [parameter.detach().clone() for parameter in algorithm.parameters()]
    trainer(2).fit(algorithm, data)
    assert not all(torch.equal(old, new) for old, new in zip(before, algorithm.parameters(), strict=True))
    callbacks = (TestReport(), EpisodeGallery(), CompletedImages())
    trainer(callbacks=callbacks, default_root_dir=tmp_path).test(algorithm, datamodule=data, verbose=False)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["num_episodes"] == 7 and np.isfinite(results[algorithm.score_name]["mean"]).all()
    assert set(results.get("references", {})) == set(data.references("test", 0))
    assert set(results.get("groups", {})) == set(data.test_groups)
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.stat().st_size > 10_000


def test_a_score_of_its_own_beside_the_oracle(tmp_path):
    """Where the score is the log-likelihood, the posterior's is above it."""
    data = GaussianProcess(test_episodes=96)
    algorithm = _Smoother(data.input_shape, 1, task_type="regression", optimizer=partial(torch.optim.Adam, lr=0.05))
    trainer(60).fit(algorithm, data)
    trainer(callbacks=(TestReport(),), default_root_dir=tmp_path).test(algorithm, datamodule=data, verbose=False)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["score"] == "log_likelihood"
    for part in results["groups"].values():
        oracle = part["references"]["oracle"]["log_likelihood"]
        assert oracle["difference_mean"] == pytest.approx(part["log_likelihood"]["mean"][0] - oracle["mean"])
        assert oracle["difference_mean"] + oracle["difference_ci95"] < 0


def curves(algorithm: MetaAlgorithm, data: EpisodicDataModule, monkeypatch, split: str = "test") -> tuple:
    """The curves that the gallery draws, and its figure."""
    seen = []
    monkeypatch.setattr(
        "callbacks.pictures.episode_gallery.save_and_log", lambda trainer, name, figure, run_dir: seen.append(figure)
    )
    gallery = EpisodeGallery(num_episodes=3)
    trainer(callbacks=(gallery,)).test(algorithm, datamodule=data, verbose=False)
    with torch.no_grad():
        return [gallery._curve(algorithm, data, split, index) for index in gallery._indices(data, split)], seen[0]


def test_curves_with_bands_and_the_posterior(monkeypatch):
    data = GaussianProcess(test_episodes=96)
    algorithm = _Smoother(data.input_shape, 1, task_type="regression")
    drawn, figure = curves(algorithm, data, monkeypatch)
    assert [curve.title.split(",")[0] for curve in drawn] == ["rbf", "matern52", "periodic"]
    for axes, curve in zip(figure.axes, drawn, strict=True):
        assert torch.equal(curve.std, torch.ones_like(curve.mean))
        mean, std = curve.posterior
        assert mean.shape == std.shape == (400,) and (std >= 0.0199).all()
        assert len(axes.collections) == 2  # the bands of the prediction and of the posterior
        low, high = axes.get_ylim()
        assert low < (mean - 2 * std).min() and (mean + 2 * std).max() < high
        x, y = (np.ravel(values) for values in next(line for line in axes.lines if line.get_label() == "context").get_data())
        np.testing.assert_allclose(np.stack([x, y], -1), torch.cat(curve.episode[:2], -1), rtol=1e-6)


def test_curves_of_two_outputs(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    rows = [("task", "x", "y", "z"), *((task, point, point * task, task - point) for task in range(10) for point in range(9))]
    path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    data = CsvRegression(str(path), "task", "x", ["y", "z"], test_episodes=4)
    data.setup()
    drawn, figure = curves(_Smoother(data.input_shape, 2, task_type="regression"), data, monkeypatch)
    assert [curve.mean.shape for curve in drawn] == [(400, 2)] * len(drawn) and all(curve.posterior is None for curve in drawn)
    assert {curve.title for curve in drawn} <= {name for name, _ in data._tasks["test"]}
    assert figure.axes[0].get_ylabel() == "y, z (standardised)"
