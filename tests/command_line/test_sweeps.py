"""Every sweep under configs/, as wandb reads it and as its agent would start the runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.command_line import QUIET, ROOT, begin_only, train
from lightning import Trainer

from app.runs.tracking import PROJECT

SWEEPS = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))
DISTRIBUTIONS = {"uniform", "int_uniform", "log_uniform_values", "normal"}


def read(path: Path) -> dict[str, Any]:
    """The sweep after wandb's own checks."""
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution as checked

    return checked(yaml.safe_load(path.read_text()))


def choices(parameter: dict[str, Any]) -> list[Any]:
    """All values of a list, the ends of a range."""
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def command_line(sweep: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """The arguments of train.py with which wandb's agent starts the run of these parameters."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    macros |= {"env": [], "interpreter": [], "program": []}
    chunks = create_sweep_command(list(sweep["command"]))
    return [part for chunk in chunks for part in (macros[chunk[2:-1]] if chunk.startswith("${") else [chunk])]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandb_accepts_it(path: Path):
    sweep = read(path)
    assert (ROOT / sweep["program"]).is_file()
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"] and sweep["command"][-1] == "${args}"
    assert sweep["project"] == PROJECT  # beside the runs that are no sweep's
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"].keys() == {"name", "goal"} and sweep["metric"]["goal"] in ("maximize", "minimize")
    for parameter in sweep["parameters"].values():
        if "values" in parameter:
            assert len(parameter["values"]) > 1
        else:
            assert parameter["distribution"] in DISTRIBUTIONS and parameter["min"] < parameter["max"]
            assert sweep["method"] != "grid"
    assert f"uv run wandb sweep configs/sweep/{path.name}" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_value_of_every_parameter_suits_method_and_data(path: Path, tmp_path, monkeypatch):
    """The run is built and checked, as far as its first step."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Trainer, "fit", begin_only)
    monkeypatch.setattr("app.command_line.cli.print_summary", lambda _: None)
    sweep = read(path)
    values = {name: choices(parameter) for name, parameter in sorted(sweep["parameters"].items())}
    for number in range(max(map(len, values.values()))):  # the first of all, then the second of all, ...
        chosen = {name: of_one[min(number, len(of_one) - 1)] for name, of_one in values.items()}
        arguments = [part for part in command_line(sweep, chosen) if part != "fit"]
        built = train("fit", *arguments, *QUIET, f"--trainer.default_root_dir={tmp_path / str(number)}")
        assert built.status == 0, built.err
        config = yaml.safe_load((tmp_path / str(number) / "config.yaml").read_text())
        for name, value in chosen.items():
            assert_chosen(config, name, value)


def assert_chosen(config: dict[str, Any], name: str, value: Any) -> None:
    """The value stands in the resolved config under that name."""
    for part in name.split("."):
        config = config.get("init_args", config)[part]
    if isinstance(config, dict):  # a class, by its name or by a file that names it
        named = yaml.safe_load((ROOT / value).read_text())["class_path"] if value.endswith(".yaml") else value
        assert config["class_path"].rsplit(".", 1)[-1] == named.rsplit(".", 1)[-1]
    else:
        assert config == value
