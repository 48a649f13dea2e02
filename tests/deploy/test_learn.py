"""The verb `learn` and the file of a learner: from a checkpoint and a person's own files, call after call."""

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, Outcome, fork, train
from helpers.small import Blots
from helpers.tables import read, write
from PIL import Image

import app
import app.report.__main__
from app.deploy.estimator import FewShotClassifier
from app.errors import InputError
from app.runs.learner_file import held

FIT = [*QUIET, "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.val_episodes=2"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Of two steps: pictures, and a table of tasks."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    rows = [[f"site {task}", year, 100 * task + year] for task in range(10) for year in generator.uniform(1950, 2000, 9)]
    write(folder / "table.csv", ["site", "year", "price"], rows)
    blots = [f"--data={Blots.__module__}.Blots", "--data.ways=3", "--data.queries=2", "--data.meta_batch_size=2"]
    table = ["--data=CsvRegression", f"--data.path={folder / 'table.csv'}", "--data.task=site", "--data.x=year", "--data.y=price"]
    options = {
        "ProtoNet": ["--model=ProtoNet", "--model.backbone=Conv4", "--model.backbone.width=8", *blots],
        "CNP": ["--model=CNP", "--model.hidden_size=16", *table],
    }
    for name, given in options.items():
        outcome = train("fit", *given, *FIT, f"--trainer.default_root_dir={folder / name}")
        assert outcome.status == 0, outcome.err
    return {name: folder / name / "checkpoints" / "last.ckpt" for name in options}


@pytest.fixture
def birds(tmp_path) -> Path:
    """Four pictures of each of four classes, in two halves, and queries."""
    data = Blots(ways=4, shots=4, queries=3)
    data.setup()
    episode = data.episode("test", 0)
    for part, images, labels in (("support", *episode[:2]), ("query", *episode[2:])):
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            half = part if part == "query" else ("first", "second")[number % 2]
            path = tmp_path / half / f"bird {'abcd'[label]}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * image[0]).round().byte().numpy()).save(path)
    return tmp_path


def learn(folder: Path, *args, learner: str = "birds") -> Outcome:
    return train("learn", f"--learner={folder / learner}.learner", "--device=cpu", *args)


def wait_for(path: Path) -> None:
    """Until another process has made the file."""
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.005)


def begun(folder: Path, checkpoint: Path, support: str, learner: str = "birds") -> Path:
    outcome = learn(folder, f"--ckpt_path={checkpoint}", f"--support={folder / support}", learner=learner)
    assert outcome.status == 0, outcome.err
    return folder / f"{learner}.learner"


def answers(folder: Path, learner: str = "birds") -> list[dict[str, str]]:
    out = folder / "out.csv"
    outcome = train("predict", f"--learner={folder / learner}.learner", f"--query={folder / 'query'}", f"--out={out}")
    assert outcome.status == 0, outcome.err
    return read(out)


@pytest.mark.slow
def test_a_life(checkpoints, birds):
    begun(birds, checkpoints["ProtoNet"], "first")
    more = learn(birds, f"--support={birds / 'second'}", f"--held_out={birds / 'query'}")
    assert "does not know" not in more.out
    assert more.status == 0 and "4 classes, 16 examples" in more.out and "accuracy" in more.out
    whole = answers(birds)
    queries = [f"--query={birds / 'query'}", f"--out={birds / 'sets.csv'}", "--coverage=0.5"]
    refused = train("predict", f"--learner={birds / 'birds.learner'}", *queries)
    assert refused.status == 1 and "there are 4 classes, and the validation tasks of training had 3" in refused.err
    assert list(whole[0])[:3] == ["file", "label", "probability"] and (birds / "out.png").exists()

    begun(birds, checkpoints["ProtoNet"], "second", "other")
    assert learn(birds, f"--merge={birds / 'birds.learner'}", learner="other").status == 0
    again = learn(birds, f"--forget_files={birds / 'second'}", learner="other")
    assert "forgot  16 examples" in again.out  # each had been learned twice
    assert learn(birds, f"--support={birds / 'second'}", learner="other").status == 0
    assert answers(birds, "other") == whole

    (birds / "list.txt").write_text("".join(f"{path}\n" for path in sorted(birds.glob("second/bird a/*"))))
    assert learn(birds, f"--forget_files={birds / 'list.txt'}").status == 0
    less = learn(birds, "--forget", "bird b", "bird d", f"--held_out={birds / 'query'}")
    assert less.status == 0 and "of 12 examples, 6 of them of classes that it does not know" in less.out
    assert train("predict", f"--learner={birds / 'birds.learner'}", *queries).out.count("sets  at 50 %, by ") == 1
    assert {name for row in read(birds / "sets.csv") for name in row["set"].split(" | ")} <= {"unknown", "bird a", "bird c"}
    shutil.rmtree(birds / "second" / "bird a")
    for name in ("first", "second"):
        for gone in ("bird b", "bird d"):
            shutil.rmtree(birds / name / gone)
    begun(birds, checkpoints["ProtoNet"], "first", "never")
    assert learn(birds, f"--support={birds / 'second'}", learner="never").status == 0
    assert answers(birds) == answers(birds, "never")
    assert app.report.__main__.main([str(birds / "birds.learner")]) == 0
    page = (birds / "birds.html").read_text()
    assert page.count("<svg") == 4 and "bird a" in page and "took back" in page
    shown = learn(birds)
    assert "2 classes, 6 examples" in shown.out and shown.out.count("journal") == 4 and "2  bird a" in shown.out


def test_python_and_the_command_line_share_a_file(checkpoints, birds):
    file = begun(birds, checkpoints["ProtoNet"], "first")
    paths = sorted(birds.glob("second/*/*.png"))
    learner = app.load_learner(file)
    learner.learn(paths, [path.parent.name for path in paths])
    mine = app.load_learner(file)
    learner.save(file)
    assert learn(birds).out.count("journal") == 2
    with pytest.raises(InputError, match="changed by another program"):
        mine.save(file)
    with pytest.raises(InputError, match="is there already"):
        app.load(str(checkpoints["ProtoNet"])).learner().save(file)
    classifier = FewShotClassifier(str(checkpoints["ProtoNet"]), device="cpu")
    with pytest.raises(InputError, match="call fit first"):
        classifier.predict(paths)
    first = sorted(birds.glob("first/*/*.png"))
    classifier.partial_fit(first, [path.parent.name for path in first]).partial_fit(paths, [path.parent.name for path in paths])
    twin = FewShotClassifier(**classifier.get_params()).fit([*first, *paths], [path.parent.name for path in [*first, *paths]])
    queries = sorted(birds.glob("query/*/*.png"))
    assert (classifier.predict_proba(queries) == twin.predict_proba(queries)).all()
    assert (
        classifier.predict(queries).tolist() == learner.predict(queries).labels and list(classifier.classes_) == learner.classes
    )
    assert classifier.score(queries, classifier.predict(queries)) == 1
    expected = [row["label"] for row in answers(birds)]
    assert learner.predict(queries).labels == expected


def test_tasks_of_a_regression(checkpoints, tmp_path):
    rows = [[f"site {task}", year, 100 * task + year] for task in (2, 3) for year in (1955, 1970, 1990)]
    header = ["site", "year", "price"]
    write(tmp_path / "both.csv", header, rows)
    write(tmp_path / "one.csv", header, rows[:2])
    write(tmp_path / "rest.csv", header, rows[2:])
    write(tmp_path / "query.csv", ["site", "year"], [["site 3", 1960], ["site 2", 1960]])
    for name, tables in (("whole", ["both"]), ("parts", ["one", "rest"])):
        begun(tmp_path, checkpoints["CNP"], f"{tables[0]}.csv", name)
        for table in tables[1:]:
            assert learn(tmp_path, f"--support={tmp_path / table}.csv", learner=name).status == 0
    found = {}
    for name in ("whole", "parts"):
        out = tmp_path / f"{name}.csv"
        outcome = train("predict", f"--learner={tmp_path / name}.learner", f"--query={tmp_path / 'query.csv'}", f"--out={out}")
        assert outcome.status == 0, outcome.err
        found[name] = read(out)
    assert found["whole"] == found["parts"] and found["whole"][0]["price_mean"] != found["whole"][1]["price_mean"]
    task = [[year, price] for site, year, price in rows if site == "site 3"]
    adapted = app.load(str(checkpoints["CNP"])).adapt([[year] for year, _ in task], [price for _, price in task])
    assert float(found["whole"][0]["price_mean"]) == pytest.approx(float(adapted.predict([[1960]]).mean), rel=1e-5)
    write(tmp_path / "nameless.csv", ["year"], [[1960]])
    bad = train("predict", f"--learner={tmp_path / 'whole.learner'}", f"--query={tmp_path / 'nameless.csv'}")
    assert bad.status == 1 and "which task the queries are of is not said; it knows site 2, site 3" in bad.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (["--forget=[bird z]"], "it knows no such class; it knows bird a, bird b, bird c, bird d"),
        (["--forget=bird z"], "it knows no such class; it knows bird a, bird b, bird c, bird d"),
        (["--forget_files={birds}/second"], "8 of 8 examples were never learned, the first is {birds}/second/bird a/"),
        (["--merge={birds}/absent.learner"], "does not exist"),
        (["--merge={birds}/birds.learner"], "is the learner itself"),
        (["--support={birds}/first", "--forget=bird a"], "give one of them a call"),
        (["--support={birds}/table.csv"], "is a table, and the checkpoint classifies pictures"),
        (["--ckpt_path={ckpt}", "--support={birds}/first"], "is there already"),
        (["--memory=3"], "chosen when a learner begins"),
        (["--model.distance=cosine", "--support={birds}/first"], "chosen when a learner begins"),
        (["--learner={birds}/birds.ckpt"], "does not end in .learner"),
        (["--learner={birds}/cut.learner"], "is not a whole learner"),
        (["--learner={birds}/old.learner"], "is of format 1, and this version reads format 2"),
        (["--learner={birds}/ckpt.learner"], "is a checkpoint; give it as --ckpt_path"),
        (["--learner={birds}/absent/absent.learner", "--forget=bird a"], "does not exist"),
    ],
)
def test_bad_input(args, wrong, checkpoints, birds):
    file = begun(birds, checkpoints["ProtoNet"], "first")
    write(birds / "table.csv", ["x", "y"], [[1, 2]])
    (birds / "cut.learner").write_bytes(file.read_bytes()[:5000])
    torch.save({"learner_format": 1}, birds / "old.learner")
    shutil.copy(checkpoints["ProtoNet"], birds / "ckpt.learner")
    before = file.read_bytes()
    outcome = learn(birds, *(arg.format(birds=birds, ckpt=checkpoints["ProtoNet"]) for arg in args))
    assert outcome.status == 1 and wrong.format(birds=birds) in outcome.err and outcome.err.count("\n") == 1, outcome
    assert file.read_bytes() == before and not (birds / "absent").exists()


@pytest.mark.slow
def test_one_writer_at_a_time(checkpoints, birds):
    file = begun(birds, checkpoints["ProtoNet"], "first")
    process = fork(_hold, file)
    wait_for(birds / "is held")
    outcome = learn(birds, "--forget=bird a")
    process.kill()
    process.join()
    assert outcome.status == 1 and "is being written by another process" in outcome.err
    assert learn(birds, "--forget=[bird a]").status == 0  # the system has freed it


def _hold(file: Path) -> None:
    with held(file):
        (file.parent / "is held").touch()
        time.sleep(60)


@pytest.mark.slow
def test_killed_at_any_moment_it_is_whole(checkpoints, birds):
    file = begun(birds, checkpoints["ProtoNet"], "first")
    seen = set()
    for moment in (0.0, 0.02, 0.05, 0.1):
        process = fork(_write, file)
        wait_for(birds / "writes")
        time.sleep(moment)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        (birds / "writes").unlink()
        counts = app.load_learner(file).kept.counts
        assert set(counts.values()) <= {2} and set(counts) >= {"bird a", "bird b", "bird c"}
        seen.add(len(counts))
    assert {path.name for path in birds.glob("*.learner")} == {"birds.learner"}


def _write(file: Path) -> None:
    """Writes a learner of three and of four classes, again and again."""
    torch.set_num_threads(1)
    learner = app.load_learner(file)
    paths = sorted(file.parent.glob("first/bird d/*.png"))
    (file.parent / "writes").touch()
    while True:
        if "bird d" in learner.kept.counts:
            learner.forget("bird d")
        else:
            learner.learn(paths, ["bird d"] * len(paths))
        learner.save(file)
