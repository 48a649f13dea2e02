"""A learner on a stream: what it scores, and that nothing that interrupts it changes anything."""

import csv
import json
import signal
import socket
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, start, train
from helpers.small import trainer
from helpers.streams import METHODS, Patterns

from app.backbones.conv4 import Conv4
from app.backbones.rows import Rows
from app.continual.learner import ContinualLearner
from app.continual.methods import er, gdumb, joint
from callbacks.stream_report import StreamReport, tables
from callbacks.test_report import print_table

RUN = [*QUIET, "--model=ContinualLearner", "--data=helpers.streams.Patterns"]
DOUBLE = "--trainer.precision=64-true"
SAVING = ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_steps=2"]
SMALL = {"LaMAML": ["--model.method.glances=2"], "GDumb": ["--model.method.epochs=2"]}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of ER that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(*fit(folder, "ER")).status == 0
    return folder


@pytest.fixture(scope="module")
def two_streams(tmp_path_factory) -> tuple[Path, str]:
    """A run of La-MAML on two processes, each with a stream of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, two(folder, "LaMAML")


def fit(folder: Path, method: str, *args: Any) -> list[str]:
    backbone = ["--model.backbone=MLP", "--model.backbone.hidden_sizes=[8,8]"]
    named = [f"--model.method={METHODS[method].__module__}.{method}", *SMALL.get(method, [])]
    return ["fit", *RUN, *SAVING, *named, *backbone, f"--trainer.default_root_dir={folder}", *args]


def matrix(folder: Path, view: str = "class") -> np.ndarray:
    rows = list(csv.reader((folder / f"r_matrix_{view}.csv").read_text().splitlines()))
    return np.array([row[1:] for row in rows[1:]], float)


def state(folder: Path) -> dict[str, Any]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "global_step", "Patterns")}


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found.nan_to_num(-1) if found.is_floating_point() else found, expected.nan_to_num(-1))
    else:
        assert found == expected


def test_scores_are_those_of_the_network(tmp_path):
    stream = Patterns()
    learner = ContinualLearner(stream)
    run = trainer(max_steps=-1)
    run.fit(learner, datamodule=stream)
    evaluation = learner.evaluation
    for number in range(3):
        samples = stream.samples(number, "test")
        logits = learner.method.net(samples.images / 255)
        expected = (logits.argmax(1) == samples.y).double().mean()
        assert evaluation["views"]["class"]["R"][-1, number] == pytest.approx(float(expected))
        pair = logits[:, 2 * number : 2 * number + 2].argmax(1) + 2 * number
        assert evaluation["views"]["task"]["R"][-1, number] == pytest.approx(float((pair == samples.y).double().mean()))
    assert run.global_step == stream.cursor == stream.num_steps == 12
    assert evaluation["cost"]["samples"] == evaluation["cost"]["gradients"] == 66


def test_fine_tuning_forgets_the_classes_that_are_gone():
    stream = Patterns(train=200)
    learner = ContinualLearner(stream)
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    R = learner.evaluation["views"]["class"]["R"]
    assert np.diag(R).min() > 0.8 and R[-1, :2].max() < 0.2  # and the masks do not leak


def test_replay_keeps_them():
    stream = Patterns(train=200)
    learner = ContinualLearner(stream, lambda net, data: er.ER(net, data, memory=60))
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    assert learner.evaluation["views"]["class"]["R"][-1].mean() > 0.6  # fine-tuning: a third


def test_task_ids_restrict_the_answers():
    stream = Patterns("task", train=200)
    learner = ContinualLearner(stream)
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    found = learner.evaluation
    assert list(found["views"]) == ["task"] and found["views"]["task"]["R"][-1].min() > 0.7


def test_anytime_evaluations_at_the_ends_are_the_rows_of_R():
    stream = Patterns()
    learner = ContinualLearner(stream, anytime_every=4)  # the steps of an experience
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    R = learner.evaluation["views"]["class"]["R"]
    for number in range(3):
        assert learner.record.anytime[number, : number + 1].tolist() == pytest.approx(R[number, : number + 1].tolist())
    averages = [R[number, : number + 1].mean() for number in range(3)]
    assert learner.evaluation["views"]["class"]["metrics"]["AAA"] == pytest.approx(np.mean(averages))


@pytest.mark.parametrize("anytime_every", [None, 3])
def test_a_method_that_learns_at_the_end_has_its_last_row_alone(anytime_every):
    stream = Patterns()
    learner = ContinualLearner(stream, lambda net, data: joint.Joint(net, data, only_last=True), anytime_every=anytime_every)
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    evaluation = learner.evaluation
    for part in evaluation["views"].values():
        assert set(part["metrics"]) == {"ACC"} and np.isnan(part["R"][:-1]).all()
    assert evaluation["views"]["task"]["undefined"]["LA"] == "Joint learns at the end of the stream alone"
    results = StreamReport().results(learner.trainer, learner)
    assert results["prequential accuracy"]["mean"] is None and "at the end" in results["prequential accuracy"]["undefined"]
    assert results["cost"]["gradients"] == 66


@pytest.mark.parametrize(
    ("scenario", "options", "reasons"),
    [
        ("class", {}, {"FWT": "the classes of an experience are no answer before it comes"}),
        ("domain", {}, {}),
        ("domain", {"evaluate_every": 2}, dict.fromkeys(("LA", "BWT", "FWT", "AAA", "WC-ACC"), "evaluate_every 2 leaves out")),
    ],
)
def test_an_undefined_metric_says_why(scenario, options, reasons, capsys):
    stream = Patterns(scenario)
    learner = ContinualLearner(stream, **options)
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    results = StreamReport().results(learner.trainer, learner)
    for name, score in results["views"][scenario].items():
        assert (score["mean"] is None) == ("undefined" in score), name
        assert reasons.get(name, "") in score.get("undefined", ""), name
    undefined = {name for name, score in results["views"][scenario].items() if score["mean"] is None}
    assert undefined >= set(reasons) if options else undefined == set(reasons)
    assert [*tables(results)[0].columns[1].cells].count("-") == len(undefined)
    print_table(tables(results)[0])
    assert "mean_j R[j,j] (Riemer" in capsys.readouterr().out


def test_training_from_scratch_for_an_evaluation_is_part_of_the_cost(monkeypatch):
    slow = gdumb.GDumb.train_afresh

    def train_afresh(self, *args) -> None:
        time.sleep(0.2)
        slow(self, *args)

    monkeypatch.setattr(gdumb.GDumb, "train_afresh", train_afresh)
    stream = Patterns()
    learner = ContinualLearner(stream, lambda net, data: gdumb.GDumb(net, data, memory=9, epochs=2))
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    cost = learner.evaluation["cost"]
    assert cost["gradients"] == 3 * 2 * 9 and cost["seconds"] > 3 * 0.2


def test_prequential_accuracy_of_shuffled_labels_is_chance():
    stream = Patterns("domain", train=250)
    read = stream.read

    def shuffled(number, split):
        images, y = read(number, split)
        return images, np.random.default_rng(number).permutation(y)

    stream.read = shuffled
    learner = ContinualLearner(stream, lambda net, data: er.ER(net, data, glances=3))
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    assert 0.42 < learner.evaluation["prequential"] < 0.58


@pytest.mark.slow
def test_the_folder_of_a_run(tmp_path):
    folder = tmp_path / "run"
    run = train(*fit(folder, "ER", "--model.anytime_every=3"))
    assert run.status == 0, run.err
    results = json.loads((folder / "results.json").read_text())
    R = matrix(folder)
    assert R.shape == (4, 3) and results["views"]["class"]["ACC"]["mean"] == pytest.approx(R[-1].mean(), abs=1e-5)
    assert "WC-ACC" in results["views"]["class"] and "mean_j R[T,j]" in run.out
    assert json.loads((folder / "stream.json").read_text())["hash"] == results["manifest_hash"]
    assert {path.name for path in (folder / "pictures").iterdir()} == {"stream_R_class_0000012.png", "stream_R_task_0000012.png"}
    tested = train("test", "--config", folder / "config.yaml", "--ckpt_path=last", *QUIET)
    assert tested.status == 0, tested.err
    again = train("fit", "--config", folder / "config.yaml", "--ckpt_path=last", *QUIET)
    assert again.status == 0 and "this run is finished: 12 of 12 steps" in again.out


# One that shares its batches, and one that trains at evaluation; all methods are broken off in test_continual_methods.
@pytest.mark.slow
@pytest.mark.parametrize("method", ["ER", "GDumb"])
def test_killed_in_the_middle_of_an_experience(method, whole, tmp_path):
    if method != "ER":
        whole = tmp_path / "whole"
        assert train(*fit(whole, method)).status == 0
    broken, log = tmp_path / "broken", tmp_path / "log"
    fault = ["--trainer.callbacks+=helpers.faults.Fault", "--trainer.callbacks.hook=on_train_batch_start"]
    process = start(*fit(broken, method), *fault, "--trainer.callbacks.step=8", "--trainer.callbacks.kind=kill", output=log)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert 0 < state(broken)["global_step"] <= 8
    assert train(*fit(broken, method), "--ckpt_path=last").status == 0
    assert np.array_equal(matrix(broken), matrix(whole))
    assert_same(state(broken), state(whole))


def two(folder: Path, method: str, *args: Any) -> str:
    """Runs the fit on two processes, as torchrun starts them, and returns what the first one printed."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    options = [*fit(folder, method), "--trainer.devices=2", "--trainer.strategy=ddp", DOUBLE, *args]
    logs = [folder.with_suffix(f".{rank}") for rank in range(2)]
    processes = [start(*options, output=log, **job, RANK=str(rank), LOCAL_RANK=str(rank)) for rank, log in enumerate(logs)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], "".join(log.read_text() for log in logs)
    return logs[0].read_text()


@pytest.mark.slow
def test_processes_with_streams_of_their_own_are_resumed(two_streams, tmp_path):
    (whole, _), broken = two_streams, tmp_path / "broken"
    two(broken, "LaMAML", "--trainer.max_steps=7")
    two(broken, "LaMAML", "--ckpt_path=last")
    found, expected = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=False)["replicas"] for one in (broken, whole))
    assert not torch.equal(*(part["state"]["method.memory.images"] for part in expected))
    for rank in range(2):
        assert_same(found[rank], expected[rank])


@pytest.mark.slow
def test_a_step_that_was_broken_off_is_taken_again(whole, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    accuracies = ContinualLearner.mean_scores

    def interrupted(self: ContinualLearner, *args: Any) -> dict:
        if self.trainer.datamodule.cursor == 7:  # the evaluation after the second experience
            raise KeyboardInterrupt
        return accuracies(self, *args)

    monkeypatch.setattr(ContinualLearner, "mean_scores", interrupted)
    assert train(*fit(broken, "ER")).status != 0
    monkeypatch.setattr(ContinualLearner, "mean_scores", accuracies)
    assert state(broken)["global_step"] < 7
    assert train(*fit(broken, "ER"), "--ckpt_path=last").status == 0
    assert_same(state(broken), state(whole))


def test_numbers_that_are_not_finite_stop_the_run_and_leave_finite_weights(tmp_path):
    diverging = ["--model.method.optimizer=SGD", "--model.method.optimizer.lr=1e30"]
    run = train(*fit(tmp_path / "run", "FineTuning", *diverging))
    assert run.status == 1 and "NaN or infinite at step" in run.err and "--model.method" in run.err
    weights = [tensor for name, tensor in state(tmp_path / "run")["state_dict"].items() if "net" in name]
    assert weights and all(bool(tensor.isfinite().all()) for tensor in weights)


@pytest.mark.slow
def test_processes_share_every_batch(tmp_path):
    assert "every batch is shared by the processes" in two(tmp_path / "two", "ER")
    assert train(*fit(tmp_path / "one", "ER"), DOUBLE).status == 0
    found, expected = (state(tmp_path / name)["state_dict"] for name in ("two", "one"))
    for name, tensor in expected.items():  # the memory to the bit, the weights to the order of summation
        close = torch.equal if "memory" in name else partial(torch.allclose, atol=1e-10, equal_nan=True)
        assert close(found[name], tensor), name


@pytest.mark.slow
def test_processes_of_a_sequential_method_have_streams_of_their_own(two_streams):
    folder, said = two_streams
    assert "each process has a stream of its own" in said
    replicas = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["replicas"]
    first, second = (part["state"]["record.accuracy_class"][1:].numpy() for part in replicas)
    assert np.allclose(first, matrix(folder)[1:], atol=1e-6)
    assert not torch.equal(*(part["state"]["method.net.head.weight"] for part in replicas))
    results = json.loads((folder / "results.json").read_text())
    accuracy = results["views"]["class"]["ACC"]
    assert results["streams"] == 2 and accuracy["mean"] == pytest.approx((first[-1].mean() + second[-1].mean()) / 2)
    assert accuracy["ci95"] == pytest.approx(12.706205 * abs(first[-1].mean() - second[-1].mean()) / 2)  # Student's t


def test_a_test_scores_the_weights_of_the_first_process_on_its_own_stream():
    stream = Patterns()
    learner = ContinualLearner(stream, lambda net, data: METHODS["LaMAML"](net, data))
    learner._trainer = SimpleNamespace(world_size=2, global_rank=1, datamodule=stream)
    replicas = []
    for stage in ("fit", "test"):
        learner.setup(stage)
        replicas.append(stream.replica)
    assert replicas == [1, 0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model=ContinualLearner", "--data=Sinusoid"], "needs a stream, and --data is Sinusoid"),
        (["--model=MAML", "--data=helpers.streams.Patterns"], "Patterns is a stream, and --model MAML learns from tasks"),
        (["--model=ContinualLearner", "--data=helpers.streams.Patterns", "--model.evaluate_every=0"], "evaluate_every is 0"),
        (["--model=ContinualLearner", "--data=RotatedMNIST", "--data.data_dir=/nonexistent"], "its download failed"),
    ],
)
def test_bad_input(args, message, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", _no_network)
    run = train("fit", *QUIET, *args, f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert run.status == 1 and message in run.err and len(run.err.splitlines()) == 1


def _no_network(*args: Any, **kwargs: Any) -> None:
    raise OSError("no network")


def test_what_is_predicted_for_an_image_depends_on_no_other_image():
    stream = Patterns(train=40)
    learner = ContinualLearner(stream, backbone=partial(Conv4, width=4, num_halvings=1))
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    together = learner.mean_scores([0])[0]["task"][0]
    images, y = stream.samples(0, "test")
    learner.method.eval()
    with Rows(one_by_one=True):
        alone = torch.cat([learner.method.predict(image[None] / 255) for image in images])
    assert float((alone[:, :2].argmax(1) == y).double().mean()) == pytest.approx(float(together))
