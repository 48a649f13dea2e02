"""Learners of tables with classes, and of pictures that an encoder makes into features."""

from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import QUIET, train
from helpers.pretrained import NAME, SIZE, write_weights
from helpers.tables import read, write
from PIL import Image

import app

FIT = [*QUIET, "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.val_episodes=2", "--data.meta_batch_size=2"]


def run(verb: str, *args) -> str:
    outcome = train(verb, *map(str, args))
    assert outcome.status == 0, outcome.err
    return outcome.out


def fitted(folder: Path, *args) -> Path:
    run("fit", *FIT, *args, f"--trainer.default_root_dir={folder}", "--data.ways=2", "--data.queries=2")
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ProtoNet", "MatchingNet"])
def test_rows_of_a_table(method, tmp_path):
    generator = np.random.default_rng(0)
    names = np.repeat([f"kind {number}" for number in range(12)], 12)
    values = generator.normal(size=(12, 3)).repeat(12, 0) * 9 + generator.normal(size=(144, 3))
    header = ["a", "b", "c", "note", "kind"]
    table = [[*row, "a word", name] for row, name in zip(values.tolist(), names, strict=True)]
    write(tmp_path / "all.csv", header, table)
    own = [f"--data.{option}" for option in ("label=kind", f"path={tmp_path / 'all.csv'}")]
    ckpt = fitted(tmp_path / "run", f"--model={method}", "--model.backbone=Identity", "--data=FeatureTable", *own)
    parts = {"first": slice(0, 5), "second": slice(5, 10), "query": slice(10, 12)}
    for name, part in parts.items():
        rows = [row for number in range(4) for row in table[12 * number : 12 * (number + 1)][part]]
        write(tmp_path / f"{name}.csv", header, rows)
        chosen = slice(0, 2) if name == "first" else slice(0, 4)
        at = [12 * number + row for number in range(12)[chosen] for row in range(12)[part]]
        np.savez(tmp_path / f"{name}.npz", **dict(zip("abc", values[at].T, strict=True)), kind=names[at])
    learner = ["--learner", tmp_path / "it.learner"]
    run("learn", *learner, "--ckpt_path", ckpt, "--support", tmp_path / "first.npz")  # two classes, then four
    said = run("learn", *learner, "--support", tmp_path / "second.csv", "--held_out", tmp_path / "query.npz")
    assert "accuracy 100.00 % of 8 examples" in said and "4 classes, 30 examples" in said and "drift  none seen in " in said
    out = ["--out", tmp_path / "out.csv"]
    said = run("predict", *learner, "--query", tmp_path / "query.csv", *out)
    found = read(tmp_path / "out.csv")
    assert list(found[0])[:5] == ["row", "note", "label", "probability", "p_kind 0"]
    assert all(row["label"] == row["true"] for row in found) and "accuracy 100.00 % of the 8 queries" in said
    given = ["--ckpt_path", ckpt, "--support", tmp_path / "second.csv", "--query", tmp_path / "query.csv", *out]
    assert "sets  at 80 %" in run("predict", *given, "--coverage", 0.8)

    run("learn", *learner, "--forget_files", tmp_path / "second.csv")
    assert app.load_learner(tmp_path / "it.learner").kept.counts == {"kind 0": 5, "kind 1": 5}
    assert "sets  at 50 %" in run("predict", *learner, "--query", tmp_path / "query.csv", *out, "--coverage", 0.5)
    assert list(read(tmp_path / "out.csv")[0])[:6] == ["row", "note", "label", "probability", "set", "p_kind 0"]
    write(tmp_path / "blank.csv", header, [[*table[0][:-1], " "]])
    write(tmp_path / "narrow.csv", header[1:], [table[0][1:]])
    for args, wrong in (
        (["--support", tmp_path / "blank.csv"], "has 1 rows without a kind; remove them"),
        (["--support", tmp_path / "narrow.csv"], "has no column a, there are b"),
        (["--support", tmp_path / "second.csv", "--task", "a"], "the learner classifies rows; leave it out"),
        (["--forget_files", tmp_path / "second.csv"], "20 of 20 examples were never learned, the first is row 1"),
    ):
        outcome = train("learn", *map(str, [*learner, *args]))
        assert outcome.status == 1 and wrong in outcome.err and outcome.err.count("\n") == 1, outcome.err


@pytest.mark.slow
def test_pictures_for_an_encoder(tmp_path):
    weights = write_weights(tmp_path / "weights.safetensors")
    generator = np.random.default_rng(0)
    for label in range(8):
        ground = generator.integers(0, 200, (1, 1, 3))
        for number in range(6):
            pixels = (ground + generator.integers(0, 50, (40, 50, 3))).astype(np.uint8)
            for folder in ("pictures", "query" if number == 5 else f"part{number % 2}"):
                path = tmp_path / folder / f"class {label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    encoder = [f"--data.encoder={NAME}", f"--data.encoder.weights={weights}", f"--data.encoder.size={SIZE}"]
    data = ["--data=ImageFolder", f"--data.path={tmp_path / 'pictures'}", f"--data.cache_dir={tmp_path / 'cache'}", *encoder]
    ckpt = fitted(tmp_path / "run", "--model=ProtoNet", "--model.backbone=Identity", *data)
    learner = ["--learner", tmp_path / "it.learner"]
    run("learn", *learner, "--ckpt_path", ckpt, "--support", tmp_path / "part0")
    said = run("learn", *learner, "--support", tmp_path / "part1", "--held_out", tmp_path / "query")
    assert "8 classes, 40 examples" in said and "drift  none seen in " in said
    run("predict", *learner, "--query", tmp_path / "query", "--out", tmp_path / "out.csv")
    found = read(tmp_path / "out.csv")
    files = sorted(path for part in ("part0", "part1") for path in tmp_path.glob(f"{part}/*/*.png"))
    adapted = app.load(str(ckpt)).adapt(files, [path.parent.name for path in files])
    assert [row["label"] for row in found] == adapted.predict(sorted(tmp_path.glob("query/*/*.png"))).labels

    weights.rename(tmp_path / "moved.safetensors")
    outcome = train("learn", *map(str, learner), "--forget", "class 0")
    assert outcome.status == 1 and "give their file as --encoder_weights" in outcome.err and outcome.err.count("\n") == 1
    run("learn", *learner, "--forget", "class 0", "--encoder_weights", tmp_path / "moved.safetensors")
    run("learn", *learner, "--forget_files", tmp_path / "part1" / "class 1")  # the file knows the new place
    assert app.load_learner(tmp_path / "it.learner").kept.counts["class 1"] == 3
