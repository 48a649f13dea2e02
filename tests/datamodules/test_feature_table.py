"""A person's own rows of numbers that have a class."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.pretrained import NAME, SIZE, write_weights
from PIL import Image

import app
from app.errors import InputError
from datamodules.feature_table import FeatureTable
from datamodules.files.feature_rows import read_feature_rows

CLASSES, ROWS, COLUMNS = 12, 8, 5


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    """Rows around a mean of each class, in columns of different units, and their classes."""
    generator = np.random.default_rng(0)
    means = generator.normal(size=(CLASSES, 1, COLUMNS))
    rows = means + 0.2 * generator.normal(size=(CLASSES, ROWS, COLUMNS))
    scaled = rows.reshape(-1, COLUMNS) * np.array([1, 1000, 1, 0.01, 1]) + np.array([0, 5000, 0, 0, 1])
    return scaled, np.repeat([f"class {number:02}" for number in range(CLASSES)], ROWS)


@pytest.fixture(scope="module")
def files(tmp_path_factory, table) -> Path:
    """The same as .npz and as .csv, which has a column of text as well."""
    folder, (values, labels) = tmp_path_factory.mktemp("tables"), table
    np.savez(folder / "table.npz", a=values[:, 0], rest=values[:, 1:], kind=labels)
    write(folder / "table.csv", values, labels)
    return folder


def write(path: Path, values: np.ndarray, labels: np.ndarray) -> Path:
    names = ("a", *(f"rest{number}" for number in range(COLUMNS - 1)), "note", "kind")
    with path.open("w", newline="") as file:
        rows = [[*row, "a word", label] for row, label in zip(values, labels, strict=True)]
        csv.writer(file).writerows([names, *rows])
    return path


def ready(path: Path, **options) -> FeatureTable:
    data = FeatureTable(path, label="kind", ways=2, queries=3, **options)
    data.setup()
    data.check()
    return data


def test_the_kinds_of_files_hold_the_same(files, table):
    by_npz, by_csv = ready(files / "table.npz"), ready(files / "table.csv")
    assert by_npz.input_shape == by_csv.input_shape == (COLUMNS,)
    one, other = by_npz.episode("test", 3), by_csv.episode("test", 3)
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert by_npz.manifest_hash == by_csv.manifest_hash


def test_columns_are_standardised_over_the_training_classes(files, table):
    data, (values, labels) = ready(files / "table.npz"), table
    train = np.isin(labels, data.class_names("train"))
    expected = (values - values[train].mean(0)) / values[train].std(0)
    found = data.read_split("test").images
    assert np.allclose(found, expected[np.isin(labels, data.class_names("test"))], atol=1e-5)
    plain = ready(files / "table.npz", standardise=False).read_split("test").images
    assert np.allclose(plain, values[np.isin(labels, data.class_names("test"))], rtol=1e-6)


def test_a_column_says_the_split(tmp_path, table):
    values, labels = table
    split = np.where(labels < "class 04", "test", np.where(labels < "class 07", "val", "train"))
    np.savez(tmp_path / "table.npz", values=values, kind=labels, part=split)
    assert ready(tmp_path / "table.npz", split="part").class_names("val") == ["class 04", "class 05", "class 06"]
    split[0] = "train"
    np.savez(tmp_path / "table.npz", values=values, kind=labels, part=split)
    with pytest.raises(InputError, match="class 'class 00' has test and train in column part"):
        ready(tmp_path / "table.npz", split="part")


def test_parquet_holds_the_same_where_it_can_be_read(files, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    rows = read_feature_rows(files / "table.csv", "--data.path", None, ("kind",))
    columns = dict(zip(rows.columns, rows.values.T, strict=True)) | {"kind": rows.texts["kind"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "table.parquet")
    assert ready(tmp_path / "table.parquet").manifest_hash == ready(files / "table.csv").manifest_hash


def test_what_is_wrong_with_a_table_is_said_in_a_line(files, tmp_path, table, monkeypatch):
    values, labels = table
    holes, alone = values.copy(), labels.copy()
    holes[7, 1] = np.nan
    alone[:1] = "alone"
    text = tmp_path / "text.csv"
    text.write_text((files / "table.csv").read_text().replace(str(values[2, 0]), "much"))
    (tmp_path / "cut.npz").write_bytes((files / "table.npz").read_bytes()[:300])
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("datamodules.files.feature_rows.import_module", absent)
    for path, options, said in (
        (files / "table.npz", {"label": "sort"}, "--data.label sort is no column of .*, which has kind, a, rest0"),
        (files / "table.npz", {"columns": ["b"]}, "has no column b, there are a, rest0"),
        (
            write(tmp_path / "holes.csv", holes, labels),
            {},
            "has 1 rows with a number that is not finite, .* row 8 in column rest0",
        ),
        (text, {}, "has 'much' in row 3 of column a, no number"),
        (write(tmp_path / "alone.csv", values, alone), {}, "class 'alone' .* has 1 rows, fewer than --data.shots 1"),
        (tmp_path / "cut.npz", {}, "is not a whole .npz file"),
        (tmp_path / "table.parquet", {}, "needs the package pyarrow"),
        (tmp_path / "nowhere.npz", {}, "nowhere.npz does not exist"),
        (tmp_path, {}, "is a folder; give a .npz, .csv or .parquet file"),
    ):
        with pytest.raises(InputError, match=said) as error:
            ready(path, **{"split_seed": 3} | options) if "label" not in options else FeatureTable(path, **options).setup()
        assert "\n" not in str(error.value)


def absent(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.slow
def test_a_checkpoint_classifies_rows(files, tmp_path, table):
    values, labels = table
    options = ["--data=FeatureTable", f"--data.path={files}/table.csv", "--data.label=kind", "--data.ways=2", "--data.queries=3"]
    small = ["--data.meta_batch_size=2", "--data.val_episodes=2", "--data.test_episodes=2", "--trainer.max_steps=3"]
    run = [*QUIET, f"--trainer.default_root_dir={tmp_path}/run"]
    outcome = train("fit", "--model=ProtoNet", "--model.backbone=Identity", *options, *small, *run)
    assert outcome.status == 0, outcome.err
    place = tmp_path / "run" / "checkpoints" / "last.ckpt"
    rows = np.isin(labels, ["class 00", "class 01", "class 02"])
    support, query = (np.flatnonzero(rows)[part::2] for part in (0, 1))
    write(tmp_path / "support.csv", values[support], labels[support])
    write(tmp_path / "query.csv", values[query], labels[query])
    out = tmp_path / "found.csv"
    given = ("predict", "--ckpt_path", place, "--support", tmp_path / "support.csv", "--out", out)
    outcome = train(*given, "--query", tmp_path / "query.csv")
    assert outcome.status == 0, outcome.err
    with out.open() as file:
        found = list(csv.DictReader(file))
    share = np.mean([row["label"] == row["true"] for row in found])
    assert share > 0.7 and f"accuracy {100 * share:.2f} % of the {len(query)} queries" in outcome.out
    adapted = app.load(str(place)).adapt(values[support], labels[support].tolist())
    assert [row["label"] for row in found] == adapted.predict(values[query]).labels
    np.savez(tmp_path / "narrow.npz", a=values[query, 0])
    outcome = train(*given, "--query", tmp_path / "narrow.npz")
    assert outcome.status == 1 and "narrow.npz has no column rest0, there are a" in outcome.err
    outcome = train(*given, "--query", files / "table.npz", "--support", tmp_path / "narrow.npz")
    assert outcome.status == 1 and outcome.err.count("\n") == 1


@pytest.mark.slow
def test_pictures_are_embedded_into_a_file(tmp_path):
    weights = write_weights(tmp_path / "weights.safetensors")
    generator = np.random.default_rng(0)
    for label in range(6):
        (tmp_path / "pictures" / f"class {label}").mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"class {label}" / f"{number}.png")
    encoder = ["--encoder", NAME, "--encoder.weights", weights, "--encoder.size", SIZE, "--cache_dir", tmp_path / "cache"]
    out = tmp_path / "features.npz"
    outcome = train("embed", *encoder, "--pictures", tmp_path / "pictures", "--out", out)
    assert outcome.status == 0 and "24 pictures of 6 classes" in outcome.out, outcome.err
    data = FeatureTable(out, ways=2, queries=3)
    data.setup()
    data.check()
    with np.load(out) as file:
        assert data.input_shape == file["feature"].shape[1:] and file["name"][0] == "class 0/0.png"
    for given, said in (
        (["--pictures", tmp_path / "nowhere"], "--pictures .*nowhere does not exist"),
        (["--out", tmp_path / "features.txt"], "give one that ends in .npz"),
        (["--encoder.weights", "nowhere"], "--encoder.weights nowhere does not exist"),
    ):
        outcome = train("embed", *encoder, "--pictures", tmp_path / "pictures", "--out", out, *given)
        assert outcome.status == 1 and outcome.err.count("\n") == 1
        assert re.search(said, outcome.err), outcome.err


def write_parquet(path: Path, **columns) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")
    from pyarrow.parquet import write_table

    write_table(arrow.table(columns), path)
    return path


def test_embeddings_in_a_parquet_file(tmp_path):
    """Lists of numbers, as programs for embeddings write them, are columns side by side."""
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    path = write_parquet(tmp_path / "rows.parquet", embedding=list(rows), label=["a", "b", "c"] * 2)
    found = read_feature_rows(path, "--data.path", None, ("label",))
    assert found.columns == ["embedding0", "embedding1", "embedding2"] and np.array_equal(found.values, rows)
    assert found.texts["label"].tolist() == ["a", "b", "c"] * 2
    blank = write_parquet(tmp_path / "blank.parquet", x=[1.0, 2.0], label=[None, "a"])
    assert read_feature_rows(blank, "--data.path", None, ("label",)).texts["label"].tolist() == ["", "a"]
    ragged = write_parquet(tmp_path / "ragged.parquet", embedding=[[1.0], [1.0, 2.0]], label=["a", "b"])
    with pytest.raises(InputError, match=r"column embedding of --data.path .* lists of different lengths: 1, 2; give each row"):
        read_feature_rows(ragged, "--data.path", None)
    absent = write_parquet(tmp_path / "absent.parquet", x=[1.0, None], label=["a", "b"])
    with pytest.raises(InputError, match=r"has '' in row 2 of column x, no number"):
        read_feature_rows(absent, "--data.path", None, ("label",))
    (tmp_path / "no.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"is not a whole .parquet file"):
        read_feature_rows(tmp_path / "no.parquet", "--data.path", None)
