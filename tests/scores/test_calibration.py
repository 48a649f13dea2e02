"""The calibration that `test` reports, against its formula."""

import json
import math

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.small import ONE_OF_EACH_BASE, Blots, small_run, task_of, trainer
from torchmetrics.functional.classification import multiclass_calibration_error

from app.episode import Episode
from app.scores.calibration import Calibration
from app.scores.tally import Tally
from callbacks.pictures.reliability_diagram import reliability_figure

CLASSIFIERS = [name for name in ONE_OF_EACH_BASE if task_of(name) == "classification"]


def formula(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Guo et al. 2017, equation 3."""
    confidences, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidences * num_bins).astype(int), num_bins - 1)
    members = [bins == number for number in range(num_bins)]
    return sum(part.mean() * abs(right[part].mean() - confidences[part].mean()) for part in members if part.any())


def test_the_formula():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(1000, 4, generator=generator).mul(3).softmax(-1)
    labels = torch.randint(4, (1000,), generator=generator)
    whole, parts = Calibration(4), Calibration(4)
    whole.update(probabilities, labels)
    for rows in (slice(0, 100), slice(100, None)):
        parts.update(probabilities[rows], labels[rows])
    found = whole.compute()
    assert found == parts.compute()
    other, order = Calibration(4), torch.randperm(1000, generator=generator)
    other.update(probabilities[order], labels[order])
    assert other.compute() == found  # to the bit
    assert found["error"] == pytest.approx(formula(probabilities.numpy(), labels.numpy()), abs=1e-6)
    assert found["error"] == pytest.approx(multiclass_calibration_error(probabilities, labels, 4).item(), abs=1e-5)
    assert sum(part["count"] for part in found["bins"]) == found["num_queries"] == 1000
    assert all(part["from"] <= part["confidence"] < part["to"] for part in found["bins"])


def test_certainty():
    """A probability of exactly 1 belongs to the last bin, of which half is right here."""
    calibration = Calibration(2)
    calibration.update(torch.tensor([[1.0, 0.0], [0.98, 0.02]]), torch.tensor([0, 1]))
    found = calibration.compute()
    assert len(found["bins"]) == 1 and found["error"] == pytest.approx(0.49, abs=1e-6)


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_of_a_method(method):
    """Of 7 episodes in chunks, against predictions of one episode after the other."""
    algorithm, data = small_run(method, eval_inner_steps=2, tasks_per_chunk=3)
    trainer().test(algorithm, datamodule=data, verbose=False)
    found, params = algorithm.evaluation["calibration"], dict(algorithm.named_parameters())
    algorithm.eval()
    probabilities, labels = [], []
    for number in range(7):
        episode = data.episode("test", number)
        (outputs,) = algorithm.query_outputs(params, Episode(*(tensor[None] for tensor in episode)), number)
        probabilities.append(algorithm.probabilities(outputs).detach().numpy())
        labels.append(episode.query_y.numpy())
    probabilities, labels = np.concatenate(probabilities), np.concatenate(labels)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert found["num_queries"] == len(labels) == 42
    assert found["error"] == pytest.approx(formula(probabilities, labels), abs=1e-4)
    right = sum(part["count"] * part["accuracy"] for part in found["bins"]) / 42
    assert right == pytest.approx(algorithm.evaluation["scores"]["accuracy"]["mean"][-1])


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_as_deployment_says_it(temperature):
    """Of the first task, whose queries were answered one by one; the other one's were not."""
    generator = torch.Generator().manual_seed(0)
    together, alone = (torch.randn(tasks, 50, 4, generator=generator).mul(3).softmax(-1) for tasks in (2, 1))
    labels = torch.randint(4, (2, 50), generator=generator)
    for given, said, true in ((None, together, labels), (alone, alone, labels[:1]), (alone[:0], alone[:0], labels[:0])):
        tally = Tally("test", torch.device("cpu"), 4, None, temperature)
        tally.judge(together, labels, given)
        tally.judge(together, labels, given)
        said = said.flatten(0, 1).double().pow(1 / temperature)
        found = tally.worth()["deployed"]
        assert (found["temperature"], found["num_queries"]) == (temperature, 2 * len(said))
        if len(said):
            expected = formula((said / said.sum(1, keepdim=True)).numpy(), true.flatten().numpy())
            assert found["error"] == pytest.approx(expected, abs=1e-6)


def test_regression_has_none_and_validation_neither():
    algorithm, data = small_run("MAML", "regression")
    trainer().test(algorithm, datamodule=data, verbose=False)
    assert "calibration" not in algorithm.evaluation
    algorithm, data = small_run("ProtoNet")
    trainer().test(algorithm, datamodule=data, verbose=False)
    trainer().validate(algorithm, datamodule=data, verbose=False)
    assert "calibration" not in algorithm.evaluation


def test_results_table_log_and_picture(tmp_path):
    data = [f"--data={Blots.__module__}.Blots", "--data.ways=3", "--data.queries=2", "--data.meta_batch_size=4"]
    quiet = [option for option in QUIET if "callbacks" not in option and "logger" not in option]
    episodes = ["--data.val_episodes=4", "--data.test_episodes=8", "--trainer.logger=CSVLogger"]
    network = ["--model=ProtoNet", "--model.backbone=Conv4", "--model.backbone.width=8"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", f"--trainer.default_root_dir={tmp_path}"]
    outcome = train(*network, *data, *quiet, *episodes, *steps, "--trainer.callbacks=[ReliabilityDiagram]")
    assert outcome.status == 0, outcome.err
    found = json.loads((tmp_path / "results.json").read_text())["calibration"]
    assert found["num_queries"] == 48
    said = " ".join(outcome.out.split())
    assert f"expected calibration error {100 * found['error']:.2f} % (48 queries)" in said
    temperature = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["temperature"]
    assert found["deployed"]["temperature"] == temperature != 1
    assert f"at temperature {temperature:.2f}, as predict answers: {100 * found['deployed']['error']:.2f} % (48" in said
    (log,) = tmp_path.rglob("metrics.csv")
    assert "test/calibration_error" in log.read_text()
    assert (tmp_path / "pictures" / "test_reliability_0000002.png").exists()
    top = reliability_figure(found).axes[0]
    assert [bar.get_height() for bar in top.patches] == pytest.approx([part["accuracy"] for part in found["bins"]])


def test_a_confidence_that_is_not_a_number():
    """The test of a method that has diverged still ends, and says so."""
    calibration = Calibration(2)
    calibration.update(torch.tensor([[0.3, 0.7], [torch.nan, torch.nan]]), torch.tensor([1, 0]))
    found = calibration.compute()
    assert math.isnan(found["error"]) and found["bins"] == [] and found["num_queries"] == 2
