"""The verb `predict`: from a checkpoint and a person's own files to a table and a picture."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, Outcome, train
from helpers.small import Blots
from helpers.tables import read, write
from PIL import Image

import app
from app.errors import InputError

EPISODES = 3
BLOTS = [f"--data={Blots.__module__}.Blots", "--data.ways=3", "--data.shots=2", "--data.queries=4", "--data.meta_batch_size=4"]
FIT = [*QUIET, "--trainer.max_steps=6", "--trainer.val_check_interval=6", "--data.val_episodes=4"]
NETWORK = ["--model.backbone=Conv4", "--model.backbone.width=8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of 6 steps; each run has tested 3 episodes."""
    folder = tmp_path_factory.mktemp("runs")
    table = folder / "table.csv"
    generator = np.random.default_rng(0)
    rows = [[f"site {task}", year, 100 * task + year * task] for task in range(10) for year in generator.uniform(1950, 2000, 9)]
    write(table, ["site", "year", "price"], rows)
    csv_data = ["--data=CsvRegression", f"--data.path={table}", "--data.task=site", "--data.x=year", "--data.y=price"]
    configs = {
        "MAML": ["--model=MAML", *NETWORK, *BLOTS],
        "ProtoNet": ["--model=ProtoNet", *NETWORK, *BLOTS],
        "CNP": ["--model=CNP", "--model.hidden_size=16", *csv_data],
        "Sinusoid": ["--model=MAML", "--model.inner_lr=0.01", "--data=Sinusoid", "--data.queries=5"],
    }
    for name, options in configs.items():
        # Without a verb: fit, and then test of the best checkpoint.
        outcome = train(*options, *FIT, f"--data.test_episodes={EPISODES}", f"--trainer.default_root_dir={folder / name}")
        assert outcome.status == 0, outcome.err
    return {name: folder / name for name in configs}


@pytest.fixture(scope="module")
def episodes(tmp_path_factory) -> list[Path]:
    """The test episodes as folders of pictures; the names of the classes sort as their numbers do."""
    data = Blots(ways=3, shots=2, queries=4)
    data.setup()
    folders = []
    for index in range(EPISODES):
        episode, folder = data.episode("test", index), tmp_path_factory.mktemp("episode")
        for part, images, labels in (("support", *episode[:2]), ("query", *episode[2:])):
            for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                path = folder / part / f"class {'abc'[label]}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((255 * image[0]).round().byte().numpy()).save(path)
        folders.append(folder)
    return folders


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def predict(run: Path, folder: Path, *args, support: str = "support", query: str = "query") -> Outcome:
    parts = [f"--support={folder / support}", f"--query={folder / query}"]
    return train("predict", f"--ckpt_path={checkpoint(run)}", *parts, f"--out={folder / 'out.csv'}", "--device=cpu", *args)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MAML", "ProtoNet"])
def test_the_accuracy_of_predict_is_that_of_test(method, runs, episodes):
    shares = []
    for folder in episodes:
        outcome = predict(runs[method], folder, *["--transductive"] * (method == "MAML"))
        assert outcome.status == 0 and outcome.err == ""
        rows = read(folder / "out.csv")
        assert [row["file"] for row in rows] == sorted(
            str(path.relative_to(folder / "query")) for path in folder.glob("query/*/*")
        )
        for row in rows:
            probabilities = [float(row[f"p_class {name}"]) for name in "abc"]
            assert sum(probabilities) == pytest.approx(1, abs=1e-6) and max(probabilities) == float(row["probability"])
            assert row["label"] == f"class {'abc'[np.argmax(probabilities)]}" and row["true"] == row["file"].split("/")[0]
        shares.append(np.mean([row["label"] == row["true"] for row in rows]))
        assert f"accuracy {100 * shares[-1]:.2f} %" in outcome.out and ("transductive" in outcome.out) == (method == "MAML")
        assert width(folder / "out.png") > 300
    results = json.loads((runs[method] / "results.json").read_text())
    assert results["num_episodes"] == EPISODES
    assert np.mean(shares) == pytest.approx(results["accuracy"]["mean"][-1], abs=1e-12)


def test_python_gives_what_the_command_line_gives(runs, episodes):
    folder = episodes[0]
    assert predict(runs["ProtoNet"], folder).status == 0
    files = {part: sorted(folder.glob(f"{part}/*/*")) for part in ("support", "query")}
    adapted = app.load(checkpoint(runs["ProtoNet"])).adapt(files["support"], [path.parent.name for path in files["support"]])
    found = adapted.predict(files["query"])
    rows = read(folder / "out.csv")
    assert found.labels == [row["label"] for row in rows]
    assert [float(row["probability"]) for row in rows] == pytest.approx(found.probabilities.amax(-1).tolist(), rel=1e-6)


def test_what_a_person_asks_next(runs, episodes):
    """How sure, what is mistaken for what, and which way to answer is best."""
    outcome = predict(runs["ProtoNet"], episodes[0], "--top=2")
    assert outcome.status == 0
    assert "by class" in outcome.out and " on average, so about " in outcome.out and "left out in turn" in outcome.out
    row = read(episodes[0] / "out.csv")[0]
    assert list(row) == ["file", "label", "probability", "label_2", "probability_2", "true"]
    assert float(row["probability"]) >= float(row["probability_2"])
    outcome = predict(runs["MAML"], episodes[0], "--method=compare")
    assert outcome.status == 0
    assert all(name in outcome.out for name in ("learned ", "feature_mean ", "pixel_mean ", "; taken is "))
    assert_clear(predict(runs["MAML"], episodes[0], "--top=0"), "--top is 0")


def test_a_checkpoint_keeps_the_temperature_of_its_validation(runs):
    for name, is_kept in (("MAML", True), ("CNP", True), ("Sinusoid", False)):  # the last predicts no spread
        temperature = torch.load(checkpoint(runs[name]), weights_only=True)["temperature"]
        assert (temperature is not None and temperature > 0) == is_kept
        assert app.load(checkpoint(runs[name])).algorithm.temperature == temperature


def test_options_of_the_method(runs, episodes):
    assert "transductive" not in predict(runs["MAML"], episodes[0]).out
    assert "transductive" in predict(runs["MAML"], episodes[0], "--model.transductive", "true").out
    assert predict(runs["MAML"], episodes[0], "--model.eval_inner_steps=3").status == 0
    assert app.load(checkpoint(runs["MAML"]), eval_inner_steps=3).algorithm.eval_inner_steps == 3
    with pytest.raises(InputError, match=r"^--model.eval_inner_steps is -3; give at least 1$"):
        app.load(checkpoint(runs["MAML"]), eval_inner_steps=-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.export, of its own doing
def test_other_sizes_modes_and_numbers_of_classes(runs, episodes, tmp_path):
    """A zip of colour pictures of any size, unlabelled queries in no folder, five classes, a program, and `other`."""
    paths = {}
    for number, folder in enumerate(episodes[:2]):
        for path in sorted(folder.glob("support/*/*")):
            paths.setdefault(f"{number} {path.parent.name}", []).append(path)
    with zipfile.ZipFile(tmp_path / "support.zip", "w") as archive:
        for name, files in list(paths.items())[:5]:
            for path in files:
                Image.open(path).convert("RGB").resize((40, 31)).save(tmp_path / "one.jpg")
                archive.write(tmp_path / "one.jpg", f"mine/test/{name}/{path.stem}.jpg")
    (tmp_path / "query").mkdir()
    for number, path in enumerate(sorted(episodes[0].glob("query/*/*"))):
        shutil.copy(path, tmp_path / "query" / f"{number}.png")
    program, threshold = tmp_path / "adapted.pt2", "--threshold=0.5"
    outcome = predict(runs["ProtoNet"], tmp_path, f"--export={program}", threshold, support="support.zip")
    assert outcome.status == 0, outcome.err
    rows = read(tmp_path / "out.csv")
    assert "true" not in rows[0] and len(rows) == 12 and sum(key.startswith("p_") for key in rows[0]) == 5
    assert all((row["label"] == "other") == (float(row["probability"]) < 0.5) for row in rows)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(tmp_path / "query" / row["file"]))) for row in rows])[:, None]
    torch.save((pixels.float() / 255, [float(row["probability"]) for row in rows]), tmp_path / "expected.pt")
    script = (  # of a process that knows nothing of this application
        "import sys, torch\n"
        "x, expected = torch.load('expected.pt')\n"
        "found = torch.export.load('adapted.pt2').module()(x).amax(-1)\n"
        "assert (found - torch.tensor(expected)).abs().max() <= 1e-5\n"
        "assert not {'app', 'lightning', 'datamodules'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_a_table(runs, tmp_path):
    write(tmp_path / "support.csv", ["id", "price", "year"], [["a", 5000.5, 1955], ["b", 6000, 1975], ["c", 7000, 1990]])
    write(tmp_path / "query.csv", ["year", "price", "id"], [[1960, 5500, "d"], [1980, "", "e"]])
    outcome = predict(runs["CNP"], tmp_path, support="support.csv", query="query.csv")
    assert outcome.status == 0 and "--support: not used are the columns id" in outcome.err
    rows = read(tmp_path / "out.csv")
    assert [row["id"] for row in rows] == ["d", "e"] and width(tmp_path / "out.png") > 300
    means = [float(row["price_mean"]) for row in rows]
    found = app.load(checkpoint(runs["CNP"])).adapt([[1955], [1975], [1990]], [5000.5, 6000, 7000]).predict([[1960], [1980]])
    assert means == pytest.approx(found.mean[:, 0].tolist(), rel=1e-6)
    assert [float(row["price_low95"]) for row in rows] == pytest.approx((found.mean - 1.96 * found.std)[:, 0].tolist(), rel=1e-6)
    assert f"of the 1 queries with a target: price {abs(means[0] - 5500):.4g}" in outcome.out
    assert "too few to promise 95 % of one more task" in outcome.out


def test_predictions_of_an_earlier_run_are_replaced(runs, tmp_path):
    write(tmp_path / "support.csv", HEADER, SUPPORT)
    write(tmp_path / "earlier.csv", ["price_high95", "year", "price_mean", "note"], [[7, 1960, 8, "a"], [7, 1980, 8, "b"]])
    outcome = predict(runs["CNP"], tmp_path, support="support.csv", query="earlier.csv")
    assert outcome.status == 0
    assert outcome.err.splitlines() == [
        "--query: predicted anew are the columns price_high95, price_mean",
        "--query: not used are the columns note",
    ]
    rows = read(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "year,note,price_mean,price_low95,price_high95"
    (tmp_path / "earlier.csv").write_text("year\n1960\n1980\n")
    predict(runs["CNP"], tmp_path, support="support.csv", query="earlier.csv")
    assert [row.pop("note") for row in rows] == ["a", "b"] and rows == read(tmp_path / "out.csv")


def test_an_input_that_is_called_like_a_prediction(runs, tmp_path):
    saved = torch.load(checkpoint(runs["CNP"]), weights_only=False)
    torch.save(saved | {"inputs": saved["inputs"] | {"x": ["price_mean"]}}, tmp_path / "other.ckpt")
    write(tmp_path / "table.csv", ["price_mean", "price"], SUPPORT)
    files = {"support": "table.csv", "query": "table.csv"}
    outcome = predict(runs["CNP"], tmp_path, f"--ckpt_path={tmp_path / 'other.ckpt'}", **files)
    assert_clear(outcome, "trained on a column price_mean", "app.load")
    assert not (tmp_path / "out.csv").exists()


def test_a_table_without_names(runs, tmp_path):
    write(tmp_path / "support.csv", ["x", "y"], [[x, np.sin(x)] for x in range(5)])
    write(tmp_path / "query.csv", ["x"], [[0.5], [1.5]])
    outcome = predict(runs["Sinusoid"], tmp_path, support="support.csv", query="query.csv")
    assert outcome.status == 0 and outcome.err == "" and "transductive" not in outcome.out  # there is no norm
    assert list(read(tmp_path / "out.csv")[0]) == ["x", "y_mean"]  # MAML predicts no interval
    errors = re.search(r"of the 5 support rows, a fifth left out in turn: y (.*), by the mean of the others (.*)", outcome.out)
    assert ("the mean of the support rows is no worse" in outcome.out) == (float(errors[1]) >= float(errors[2]))


def test_unreadable_queries_are_listed(runs, episodes, tmp_path):
    shutil.copytree(episodes[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "query" / "class a" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "query" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    (tmp_path / "query" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "query" / "moved.png").symlink_to(tmp_path / "nowhere.png")
    outcome = predict(runs["ProtoNet"], tmp_path)
    assert outcome.status == 1 and len(read(tmp_path / "out.csv")) == 12
    assert outcome.err.startswith("error: 4 of 16 query pictures cannot be read") and len(outcome.err.splitlines()) == 5
    assert "broken.png (not an image)" in outcome.err and "cut.jpg" in outcome.err and "moved.png (" in outcome.err
    assert "IMG_1.HEIC (a format that is not read; save it as JPEG or PNG)" in outcome.err


def test_a_tilde_is_the_home_folder(runs, episodes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert predict(runs["ProtoNet"], episodes[0], "--out=~/mine.csv").status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.csv", "mine.png"}


def empty_class(folder):
    (folder / "support" / "class d").mkdir()


def one_class(folder):
    shutil.rmtree(folder / "support" / "class a")
    shutil.rmtree(folder / "support" / "class b")


def four_classes(folder):
    shutil.copytree(folder / "support" / "class a", folder / "support" / "class d")


def stray_picture(folder):
    shutil.copy(next(folder.glob("support/*/*")), folder / "support" / "stray.png")


def unreadable_example(folder):
    (folder / "support" / "class a" / "broken.png").write_bytes(b"no picture")


def nothing_readable(folder):
    for path in folder.glob("query/*/*"):
        path.write_bytes(b"no picture")


def no_queries(folder):
    shutil.rmtree(folder / "query")
    (folder / "query").mkdir()


def other_class(folder):
    (folder / "support" / "class a").rename(folder / "support" / "other")


PICTURES = {
    "an empty class": (empty_class, [], ["'class d'", "--support", "no pictures"]),
    "one class": (one_class, [], ["only class 'class c'", "2 classes"]),
    "four classes": (four_classes, [], ["head of 3 classes", "4", "ProtoNet"]),
    "a stray picture": (stray_picture, [], ["stray.png", "no class folder"]),
    "an unreadable example": (unreadable_example, [], ["broken.png", "--support"]),
    "no readable query": (nothing_readable, [], ["none of the 12", "--query"]),
    "no queries": (no_queries, [], ["--query", "holds no pictures"]),
    "a class called other": (other_class, ["--threshold=0.5"], ["'other'", "--threshold"]),
    "no support": (None, ["--support=lost"], ["--support lost", "does not exist"]),
    "no query": (None, ["--query=lost"], ["--query lost", "does not exist"]),
    "a table": (None, ["--support=table.csv"], ["--support table.csv"]),
    "no checkpoint": (None, ["--ckpt_path=lost.ckpt"], ["--ckpt_path lost.ckpt", "does not exist"]),
    "threshold": (None, ["--threshold=2"], ["--threshold is 2", "between 0 and 1"]),
    "type": (None, ["--threshold=high"], ["--threshold"]),
    "export": (None, ["--export=adapted.onnx"], ["--export adapted.onnx", ".pt2"]),
    "device": (None, ["--device=tpus"], ["--device tpus"]),
    "out": (None, ["--out=/proc/out.csv"], ["--out /proc/out.csv", "cannot be written"]),
    "no table": (None, ["--out=adapted.ckpt"], ["--out adapted.ckpt", ".csv"]),
    "a folder of a run": (None, ["--ckpt_path=support"], ["--ckpt_path support", "best.ckpt"]),
    "no value": (None, ["--model.transductive"], ["--model.transductive has no value"]),
    "option": (None, ["--querry=x"], ["--querry", "--query"]),
    "option of the method": (None, ["--model.transductiv=false"], ["--model.transductiv", "transductive"]),
    "value of the method": (None, ["--model.eval_inner_steps=many"], ["--model.eval_inner_steps is many", "a whole number"]),
    "network": (None, ["--model.backbone={class_path: app.backbones.Conv4, init_args: {width: 4}}"], ["does not fit", "MAML"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil, args, words", PICTURES.values(), ids=PICTURES)
def test_wrong_pictures(spoil, args, words, runs, episodes, tmp_path):
    shutil.copytree(episodes[0], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out.*"))
    if spoil:
        spoil(tmp_path)
    assert_clear(predict(runs["MAML"], tmp_path, *args), *words)
    assert {path.name for path in tmp_path.iterdir()} == {"support", "query"}


def assert_clear(outcome: Outcome, *words: str) -> None:
    assert outcome.status in (1, 2)
    assert len(outcome.err.splitlines()) <= 3 and outcome.err.startswith("error: "), outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


HEADER, SUPPORT, QUERY = ["year", "price"], [[1955, 1], [1975, 2]], [[1960]]
TABLES = {
    "a column": (["yaer", "price"], SUPPORT, HEADER[:1], QUERY, ["--support", "no column year", "yaer, price"]),
    "a column of the query": (HEADER, SUPPORT, ["x"], QUERY, ["--query", "no column year", "there are x"]),
    "no number": (HEADER, [[1955, "much"]], HEADER[:1], QUERY, ["line 2", "--support", "'much'", "price"]),
    "an empty target": (HEADER, [[1955, ""]], HEADER[:1], QUERY, ["line 2", "--support", "price"]),
    "no number in the query": (HEADER, SUPPORT, HEADER[:1], [["now"]], ["line 2", "--query", "'now'"]),
    "cells": (HEADER, [[1955]], HEADER[:1], QUERY, ["line 2", "1 cells", "has 2"]),
    "no rows": (HEADER, SUPPORT, HEADER[:1], [], ["--query", "no rows"]),
    "two tasks": (["site", *HEADER], [["a", 1, 2], ["b", 1, 2]], HEADER[:1], QUERY, ["2 tasks", "site"]),
    "another task": (["site", *HEADER], [["a", 1, 2]], ["site", "year"], [["b", 1]], ["a and b", "different tasks"]),
}


@pytest.mark.parametrize("header, support, query_header, query, words", TABLES.values(), ids=TABLES)
def test_wrong_tables(header, support, query_header, query, words, runs, tmp_path):
    write(tmp_path / "support.csv", header, support)
    write(tmp_path / "query.csv", query_header, query)
    assert_clear(predict(runs["CNP"], tmp_path, support="support.csv", query="query.csv"), *words)
    assert len(list(tmp_path.iterdir())) == 2


def test_pictures_for_a_regression(runs, episodes):
    assert_clear(predict(runs["CNP"], episodes[0]), "--support", "no table", "year, price")


def test_checkpoints_of_other_versions(runs, tmp_path):
    saved = torch.load(checkpoint(runs["MAML"]), weights_only=False)
    for change, words in (
        ({"format": 1}, "format 1 of another version, and this one reads format 2"),
        ({"format": None}, "an earlier version"),
        (
            {"config": {"model": {"class_path": "app.algorithms.optimisation_based.maml.MAMLPlus"}}},
            "app.algorithms.optimisation_based.maml.MAMLPlus",
        ),
        ({"config": {"model": {"class_path": "app.continual.learner.ContinualLearner"}}}, "learns from a stream"),
        ({"state_dict": {**saved["state_dict"], "net.extra": torch.zeros(3)}}, r"net.extra is \(3,\) there and absent here"),
    ):
        torch.save(saved | change, tmp_path / "other.ckpt")
        with pytest.raises(InputError, match=words):
            app.load(tmp_path / "other.ckpt")


def test_nothing_given():
    assert_clear(train("predict"), "--ckpt_path, --support, --query are missing", "predict --help")


def test_help():
    outcome = train("predict", "--help")
    assert outcome.status == 0
    for word in (
        "--ckpt_path",
        "--support",
        "--query",
        "--out",
        "--export",
        "--threshold",
        "--device",
        "--transductive",
        "--method",
        "--polarity",
        "--top",
    ):
        assert word in outcome.out


def test_without_docstrings(monkeypatch):
    """As under python -OO."""
    monkeypatch.setattr("app.deploy.command.Predict.__doc__", None)
    outcome = train("predict", "--ckpt_path=lost.ckpt", "--support=a", "--query=b")
    assert outcome.status == 1 and outcome.err.startswith("error: --ckpt_path lost.ckpt does not exist")
