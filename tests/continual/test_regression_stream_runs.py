"""Runs on streams of numbers: what they say, resume, refuse, and how far a method comes."""

import json
from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, train

from app.continual.references import MEAN, POSTERIOR

SMALL = ["--data=SineStream", "--data.num_waves=3", "--data.train_samples=40", "--data.test_samples=20"]


def fit(folder: Path, *options: str) -> list[str]:
    return ["fit", *QUIET, *SMALL, f"--trainer.default_root_dir={folder}", *options]


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def test_a_run_says_its_errors(tmp_path):
    run = train(*fit(tmp_path, "--model.method=BayesianLinear", "--model.method.num_random_features=60"))
    assert run.status == 0, run.err
    results = json.loads((tmp_path / "results.json").read_text())
    scores, found = results["views"]["domain"], results["references"]["domain"]
    assert results["measure"] == "mse" and next(iter(scores)) == "MSE"
    assert scores["MSE"]["mean"] < 0.5 * found[MEAN] and scores["forgetting of errors"]["mean"] < 0.01
    assert found[POSTERIOR] < found[MEAN] and results["prequential mse"]["mean"] > 0
    assert "MSE" in run.out and "forgetting of errors" in run.out and POSTERIOR in run.out and "%" not in run.out.split("cost")[0]
    assert (tmp_path / "r_matrix_domain.csv").read_text().count("\n") == 5


def test_one_that_learned_nothing_is_told(tmp_path):
    run = train(*fit(tmp_path, "--model.method=FineTuning", "--model.method.optimizer=SGD", "--model.method.optimizer.lr=1e-9"))
    assert run.status == 0, run.err
    assert "no better than the mean of the targets" in run.out and "BayesianLinear may serve better" in run.out


def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path):
    named = ["--model.method=ER", "--model.method.memory=20", "--model.anytime_every=4"]
    for folder, options in (("whole", []), ("broken", ["--trainer.max_steps=7"])):
        assert train(*fit(tmp_path / folder, *named, *options)).status == 0
    assert train(*fit(tmp_path / "broken", *named, "--ckpt_path=last")).status == 0
    whole, broken = state(tmp_path / "whole"), state(tmp_path / "broken")
    assert whole.keys() == broken.keys() and "record.mse_domain" in whole
    assert all(torch.equal(whole[name].nan_to_num(), broken[name].nan_to_num()) for name in whole)


def test_several_streams_and_a_rate_that_is_searched(tmp_path):
    assert train(*fit(tmp_path / "many", "--model.num_streams=2")).status == 0
    results = json.loads((tmp_path / "many" / "results.json").read_text())
    assert len(results["views"]["domain"]["MSE"]["of_streams"]) == 2
    run = train(*fit(tmp_path / "rates", "--model.rates=1e-9,0.001"))
    assert run.status == 0 and "learning rate 0.001: " in run.out and " on a quarter of" in run.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.method=GDumb"], "--model.method GDumb needs classes, which SineStream"),
        (["--model.method=BayesianLinear", "--model.method.noise_std=0"], "noise_std is 0"),
        (["--model.method=LaMAML", "--model.method.closed_form=true"], "closed_form true needs"),
        (["--data.num_waves=0"], "num_waves is 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(options: list[str], message: str, tmp_path):
    run = train(*fit(tmp_path, *options))
    assert run.status != 0 and message in run.err and run.err.strip().count("\n") == 0


def test_a_learner_of_numbers_is_not_taken_for_one_of_classes(tmp_path):
    assert train(*fit(tmp_path, "--trainer.max_steps=2")).status == 0
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "a").mkdir()
    run = train("learn", f"--learner={tmp_path / 'new.learner'}", f"--ckpt_path={checkpoint}", f"--support={tmp_path / 'a'}")
    assert run.status != 0 and "only `fit` and `test` take" in run.err
