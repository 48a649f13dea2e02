"""Text that looks like something else goes in by the command line and comes back from config.yaml."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.command_line import QUIET, train


def write_table(path: Path, names: list[str]) -> None:
    """Numbers below these columns, and twelve rows for each of ten tasks."""
    rows = [[f"t{task}", *(str(task + row * place) for place in range(1, len(names)))] for task in range(10) for row in range(12)]
    path.write_text("\n".join(",".join(row) for row in [names, *rows]))


def test_every_text_option(tmp_path):
    """What is printed as the config of a run is that of the run which has it as its config."""
    texts = {"trainer.logger.name": "7774e139", "trainer.logger.project": "pH: 1", "trainer.default_root_dir": "1e3"}
    texts |= {"data.path": "# rooms", "data.task": "null", "data.x": "2026-01-01", "data.y": "on"}
    lists = {"data.y": ["[Ca]", "# b", "1_000"], "trainer.logger.tags": ["5way", "1e-3", " a ", "null"]}
    args = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in (texts | lists).items()]
    printed = train("fit", "--data=CsvRegression", *args, "--print_config")
    assert printed.status == 0, printed.err
    config = yaml.safe_load(printed.out)
    for name, value in (texts | lists).items():
        section, *rest = name.split(".")
        place = config[section]
        for part in rest:
            place = place.get("init_args", place)[part]
        assert place == value, name
    file = tmp_path / "config.yaml"
    file.write_text(printed.out)
    assert train("fit", "--config", file, "--print_config").out == printed.out


@pytest.mark.slow
def test_a_run_of_such_columns_is_tested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.csv", ["1e3", "# rooms", "pH: 1"])
    data = ["--data=CsvRegression", "--data.path=table.csv", "--data.task=1e3", "--data.x=# rooms", "--data.y=pH: 1"]
    small = ["--data.num_context", "2", "4", "--data.val_episodes=4", "--data.test_episodes=4", "--trainer.max_steps=1"]
    fitted = train("fit", *data, *small, *QUIET, "--trainer.default_root_dir=1e3")
    assert fitted.status == 0, fitted.err
    tested = train("test", "--config=1e3/config.yaml", "--ckpt_path=1e3/checkpoints/last.ckpt")
    assert tested.status == 0, tested.err


def test_paths_begin_at_home(tmp_path, monkeypatch):
    """In every option that is a path, also where no shell has seen it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, meant in (("~/my runs/1", f"{tmp_path}/my runs/1"), ("~", str(tmp_path))):
        printed = train("fit", "--data=Sinusoid", f"--trainer.default_root_dir={given}", f"--ckpt_path={given}", "--print_config")
        config = yaml.safe_load(printed.out)
        assert [config["trainer"]["default_root_dir"], config["ckpt_path"]] == [meant, meant]
    (tmp_path / "run.yaml").write_text("data: Sinusoid\ntrainer:\n  default_root_dir: ~/x\n")
    printed = train("fit", "--config=~/run.yaml", "--print_config")
    assert yaml.safe_load(printed.out)["trainer"]["default_root_dir"] == f"{tmp_path}/x"


PATHS = {
    "Omniglot": ("data.data_dir", "data.cache_dir"),
    "ImageFolder": ("data.path", "data.cache_dir"),
    "ClassStream": ("data.path", "data.data_dir", "data.cache_dir"),
    "CsvRegression": ("data.path", "trainer.default_root_dir", "ckpt_path"),
}


@pytest.mark.slow
@pytest.mark.parametrize("data", PATHS)
def test_paths_are_of_this_machine(data, monkeypatch):
    """One rule for all of them: the home folder is known, a URL is refused by name."""
    monkeypatch.setenv("HOME", "/home/me")
    needed = {"CsvRegression": ["--data.task=a", "--data.x=b", "--data.y=c"]}.get(data, [])
    paths = [f"--{name}=~/a b" for name in PATHS[data]]
    printed = train("fit", f"--data={data}", *paths, *needed, "--print_config")
    config = yaml.safe_load(printed.out)
    for name in PATHS[data]:
        place = config
        for part in name.split("."):
            place = place.get("init_args", place)[part]
        assert place == "/home/me/a b", name
        refused = train("fit", f"--data={data}", *paths, *needed, f"--{name}=s3://bucket/x")
        assert refused.status == 2 and f"--{name} is s3://bucket/x" in refused.err and refused.err.count("\n") == 1


OF_VERBS = {
    "predict": ("ckpt_path", "support", "query", "out", "export", "encoder_weights"),
    "predict --learner=a.learner": ("query", "out", "export", "encoder_weights"),
    "learn": ("learner", "ckpt_path", "support", "forget_files", "merge", "held_out", "encoder_weights"),
    "embed": ("pictures", "out", "cache_dir"),
    "fit": ("config",),
}


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in OF_VERBS.items() for name in names])
def test_no_verb_takes_a_place_elsewhere_for_a_path_here(verb, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = train(*verb.split(), f"--{name}=s3://bucket/x")
    assert refused.status and f"--{name} is s3://bucket/x, and all files are" in refused.err and refused.err.count("\n") == 1
    assert not any(tmp_path.iterdir())
