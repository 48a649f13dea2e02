"""The page of several runs."""

import csv
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from app.report.__main__ import main
from app.report.chart import Line, line_chart

VOID = {"meta", "img", "polyline", "line", "circle"}


class Checked(HTMLParser):
    """Reads a page and keeps what it asks for from elsewhere, its text and its tags."""

    def __init__(self, page: str):
        super().__init__()
        self.links, self.words, self.open, self.tags, self.shape = [], [], [], [], Counter()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        self.shape[tag, *(name for name, _ in attributes)] += 1
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if text.strip() and self.open[-1] != "pre":  # YAML has a spelling of its own
            self.words.append(text.strip())


def make_run(path: Path, accuracy: float, steps: int = 60) -> Path:
    """A folder as a run of so many logged steps leaves it."""
    (path / "pictures").mkdir(parents=True)
    for step in (10, 20):
        figure = Figure(figsize=(1, 1))
        figure.savefig(path / "pictures" / f"val_episodes_{step:07d}.png")
    rows = [{"step": step, "time": 1.0, "train/outer_loss": 2.0**-step, "train/step_size/head": 0.1} for step in range(steps)]
    rows += [{"step": step, "time": 1.0, "val/accuracy": accuracy, "val/accuracy_ci95": 0.1} for step in (10, 20)]
    lines = [json.dumps(row) for row in rows]
    (path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 9')
    method = {
        "class_path": "app.algorithms.optimisation_based.maml.MAML",
        "init_args": {"inner_lr": accuracy, "note": "<script>"},
    }
    config = {"seed_everything": 3, "model": method, "data": {"class_path": "datamodules.glyphs.Glyphs"}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    score = {"inner_steps": [0, 1], "mean": [0.2, accuracy], "ci95": [0.01, 0.02]}
    results = {"score": "accuracy", "num_episodes": 600, "accuracy": score, "ways": 5, "transductive": True}
    (path / "results.json").write_text(json.dumps(results))
    (path / "environment.json").write_text(json.dumps({"torch": "2.0", "git_commit": None}))
    columns = "class,episodes,queries,correct,accuracy,most often taken for,how often"
    (path / "test_classes.csv").write_text(f"{columns}\n<b>alpha,2,4,3,{accuracy},beta,1\n")
    return path


def test_a_page_holds_every_part_and_asks_for_nothing(tmp_path, capsys):
    runs = [make_run(tmp_path / name, accuracy) for name, accuracy in (("a", 0.875), ("b", 0.5))]
    assert main([*map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    read = Checked(page)
    assert not read.open
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in read.links)
    assert "script" not in read.tags and "@import" not in page and "url(" not in page
    assert sum(link.startswith("data:") for link in read.links) == 4
    text = " ".join(read.words)
    for word in ("87.50 %", "50.00 %", "val/accuracy", "train/outer_loss", "<b>alpha", "model.inner_lr", "2.0", "MAML", "Glyphs"):
        assert word in text, word
    assert '<td class="number best">87.50' in page and '<td class="number best">50.00' not in page
    assert page.count("<polyline") == 2 * 4  # both runs: loss, step size, accuracy, and the adaptation curve
    assert "page.html" in capsys.readouterr().out


@pytest.mark.parametrize("differing", [{"shots": 5}, {"transductive": False}, {"data_manifest_hash": "1f"}, {"ways": 20}])
def test_runs_of_other_tasks_have_no_best(differing, tmp_path):
    runs = [make_run(tmp_path / name, accuracy) for name, accuracy in (("a", 0.875), ("b", 0.5))]
    path = runs[1] / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | differing))
    assert main([*map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert '<td class="number best">' not in page and "5 ways, transductive" in page


def told_run(path: Path, word: str) -> Path:
    """A run that has this word wherever its files can hold a text."""
    path.mkdir(parents=True)
    rows = [{"step": step, f"{word}/{word}/{word}": step, f"val/{word}": step, f"val/{word}_ci95": 1} for step in range(3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score = {"inner_steps": [0, 1], "mean": [0.2, 0.5], "ci95": [0.1, None]}
    loss = {"inner_steps": [1], "mean": [word], "ci95": [word]}
    none = {"mean": None, "ci95": None, "undefined": word}
    part = {"num_episodes": word, word: score, "loss": loss, "references": {word: {word: none}}, "calibration": {"error": word}}
    stream = {"views": {word: {word: none}}, "prequential accuracy": none, "cost": {word: word}}
    (path / "results.json").write_text(json.dumps({"score": word, "groups": {word: part}, **part, **stream}))
    section = {"class_path": f"app.{word}", "init_args": {word: word, "own": path.name}}
    (path / "config.yaml").write_text(yaml.safe_dump({"seed_everything": word, "model": section, "data": section}))
    (path / "environment.json").write_text(json.dumps({word: word, "python": path.name}))
    for name in ("test_classes.csv", "test_confusions.csv"):
        with (path / name).open("w", newline="") as file:
            csv.writer(file).writerows([[word] * 5, [word, word, word, word, 0.5], [word] * 5])
    (path / "pictures").mkdir()
    (path / "pictures" / f"{word}_0000010.png").write_bytes(b"no picture")
    return path


HOSTILE = """<img src=x onerror=alert(1)>'"&amp;{{ runs }}<script>"""


def test_no_text_of_a_run_becomes_a_part_of_the_page(tmp_path):
    """Whatever the words are, the page has the same tags with the same attributes, and shows them."""
    pages = {}
    for kind, word in (("harmless", "word"), ("hostile", HOSTILE)):
        runs = [told_run(tmp_path / kind / f"{number}{word}", word) for number in range(2)]
        assert main([*map(str, runs), "--out", str(tmp_path / f"{kind}.html")]) == 0
        assert main([str(runs[0])]) == 0
        pages[kind] = [Checked(path.read_text()) for path in (tmp_path / f"{kind}.html", runs[0] / "report.html")]
    for harmless, hostile in zip(pages["harmless"], pages["hostile"], strict=True):
        assert hostile.shape == harmless.shape and "script" not in hostile.tags
        assert " ".join(hostile.words).count(HOSTILE) == " ".join(harmless.words).count("word") > 50


def test_a_single_run_has_its_page_in_its_folder(tmp_path):
    run = make_run(tmp_path / "2026-01-01_00-00-00", 0.5)
    assert main([str(run)]) == 0
    assert f"{tmp_path.name}/{run.name}" in (run / "report.html").read_text()  # a time says too little


def test_a_score_says_what_it_is(tmp_path):
    mse = {"inner_steps": [0, 5], "mean": [4.0, 0.5], "ci95": [0.4, 0.1]}
    calibrated = {"score": "accuracy", "accuracy": mse, "calibration": {"error": 0.0348, "bins": []}}
    for name, results in (("sines", {"score": "mse", "mse": mse}), ("classes", calibrated)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    assert main([str(tmp_path / "sines"), str(tmp_path / "classes"), "--out", str(tmp_path / "page.html")]) == 0
    words = Checked((tmp_path / "page.html").read_text()).words
    at = words.index("0.5")
    assert words[at : at + 3] == ["0.5", "± 0.1", "mse"]
    assert words[words.index("expected calibration error") + 1] == "3.48 %"


def test_a_stream_is_told_by_its_metrics(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {init_args: {method: {class_path: app.continual.methods.er.ER}}}")
    score = {"mean": 0.5, "ci95": None}
    none = {"mean": None, "ci95": None, "undefined": "rows of R are left out"}
    view = {"ACC": score, "BWT": none, "FWT": none | {"undefined": None}, "average incremental accuracy": score}
    results = {"views": {"class": view}, "prequential accuracy": score, "cost": {"samples": 4000}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    words = Checked(page).words
    assert all(word in " ".join(words) for word in ("ER", "ACC", "50.00 %", "4,000", "class-incremental"))
    assert words[words.index("average incremental accuracy") + 1] == "50.00 %"
    assert words[words.index("BWT") + 1] == "-" and 'title="rows of R are left out"' in page
    assert words[words.index("FWT") + 1] == "not finite"  # nothing says that it means nothing


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["does not exist", "give the folder"]),
        ({}, ["is not the folder of a run", "metrics.jsonl"]),
        ({"inner/config.yaml": ""}, ["is not the folder of a run", "such as", "inner"]),
        ({"config.yaml": ""}, ["has no results yet", "--ckpt_path last"]),
        ({"results.json": "{"}, ["results.json cannot be read"]),
        ({"metrics.jsonl": "no\n"}, ["metrics.jsonl cannot be read"]),
    ],
)
def test_a_wrong_folder_is_one_line(content, words, tmp_path, capsys):
    folder = tmp_path / "run"
    for name, text in (content or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if content == {}:
        folder.mkdir()
    assert main([str(folder)]) != 0
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in (str(folder), *words))
    assert not list(tmp_path.rglob("*.html"))


def test_a_page_that_cannot_be_written_is_one_line(tmp_path, capsys):
    assert main([str(make_run(tmp_path / "run", 0.5)), "--out", str(tmp_path / "none" / "page.html")]) == 1
    assert capsys.readouterr().err.startswith("error: --out")


def test_the_home_folder_is_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        main(["~/absent", "--out=~/page.html"]) == 1
        and f"RUN_DIR {tmp_path / 'absent'} does not exist" in capsys.readouterr().err
    )


def test_a_chart_spans_its_values():
    def heights(values: list[float]) -> list[float]:
        (curve,) = line_chart("loss", [Line("run", 0, list(enumerate(values)))]).curves
        return [top for _, top in curve.places]

    linear = heights([0.0, 1.0, 2.0])
    assert linear[0] > linear[1] > linear[2] and linear[0] - linear[1] == pytest.approx(linear[1] - linear[2])
    powers = heights([1.0, 10.0, 100.0, 1000.0])
    assert powers[0] - powers[1] == pytest.approx(powers[2] - powers[3])
    assert len(heights([float(number) for number in range(1000)])) == 250
    assert heights([1.0]) == heights([2.0])


def test_a_run_without_classes_has_no_column_of_them(tmp_path):
    runs = [make_run(tmp_path / name, 0.5) for name in ("a", "b", "sines")]
    (tmp_path / "sines" / "test_classes.csv").unlink()
    assert main([*map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    table = (tmp_path / "page.html").read_text().split("accuracy of each class")[1].split("</table>")[0]
    assert table.count("<th") == 1 + 3 and "sines" not in table  # <thead, and the class and two runs
