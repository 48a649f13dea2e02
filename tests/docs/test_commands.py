"""Every command and every piece of Python in README.md and docs/ is run, made short; what cannot be is at least parsed.

Those of docs/extending.md need the files that the page makes: `test_extending.py` runs them here, in a copy that has them.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from glob import glob
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.run
import yaml
from helpers.command_line import QUIET, ROOT, train
from helpers.pages import PAGES, Command, blocks, commands
from helpers.small import options
from helpers.workspace import make_workspace, random_pictures
from packaging.requirements import Requirement

import app.report.__main__
from app.learners.learner import concrete_subclasses
from datamodules.base.resumable import ResumableDataModule


def has_its_files(page: Path) -> bool:
    """Whether the files of the project exist that a page makes."""
    return all((ROOT / block.file).exists() for block in blocks(page) if block.file and "/" in block.file)


BLOCKS = [block for page in PAGES if has_its_files(page) for block in blocks(page)]
COMMANDS = [command for block in BLOCKS if block.language == "bash" for command in commands(block)]
PYTHON = [page for page in PAGES if any(block.page == page and block.language == "python" and not block.file for block in BLOCKS)]
SHORT = [
    *(option for option in QUIET if "logger" not in option),
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
]
SMALL = {  # of the data sets that have them
    "queries": 2,
    "meta_batch_size": 2,
    "val_episodes": 2,
    "test_episodes": 2,
    "image_size": 36,
    "val_num_classes": [2],
    "test_num_classes": [2],
    "train_images": 3,
    "test_images": 2,
}
LAUNCHERS = {"uv", "run", "srun", "bench"}  # with their options they stand before the program


def program(command: Command) -> tuple[str, ...]:
    """The words from the program on, behind `uv run`, `srun` and their options."""
    words = shlex.split(command.text, comments=True)
    while words[0] in LAUNCHERS or words[0].startswith("--"):
        words = words[1:]
    return tuple(words[1:] if words[:2] == ["python", "train.py"] else words)


def cases() -> Iterator[Any]:
    """Each command once, on whichever pages it stands; those of other pages than the first that train something are slow."""
    seen = set()
    for command in COMMANDS:
        words = program(command)
        if words not in seen:
            seen.add(words)
            marks = [pytest.mark.slow] * (words[0] in ("train.py", "torchrun") and not command.place.startswith("README"))
            yield pytest.param(command, marks=marks, id=f"{command.place} {command.text}")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A folder that holds what the words in capitals stand for."""
    folder = tmp_path_factory.mktemp("template")
    make_workspace(folder)
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of it, the current folder."""
    folder = tmp_path / "here"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    random_pictures(monkeypatch)
    return folder


# What is run


def run_train(words: list[str], request: pytest.FixtureRequest) -> None:
    if "pictures.zip" in words:  # what else is decoded is worth keeping
        request.getfixturevalue("monkeypatch").setenv("XDG_CACHE_HOME", "cache")
    if "--ckpt_path" not in words:  # a learner that goes on has begun before
        for learner in (word for word in words if word.endswith(".learner")):
            assert train("learn", "--learner", learner, "--ckpt_path", "CKPT", "--support", "SUPPORT").status == 0
    outcome = train(*shortened(words))
    assert outcome.status == 0, outcome.err


def shortened(words: list[str]) -> list[str]:
    """The arguments with options that make the run short."""
    given = {word.split("=")[0] for word in words}
    if words[:1] in (["predict"], ["learn"], ["embed"]) or any("help" in name for name in given):
        return words
    steps = 2 if "--ckpt_path" in given else 1  # RUN has taken one
    added = [*SHORT, f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={steps}"]
    if "--trainer.logger" not in given:
        added.append("--trainer.logger=false")
    if "--ckpt_path" in given:  # what the run was trained on is small
        return [*words, *added]
    added.append("--trainer.default_root_dir=a_new_run")
    if given & {"--config", "--model", "--data"}:  # else the run would no longer be that of no options
        known = options(data_class(words))
        small = {name: value for name, value in SMALL.items() if name in known and f"--data.{name}" not in given}
        added += [f"--data.{name}={value}" for name, value in small.items()]
    return [*words, *added]


def data_class(words: list[str]) -> type[ResumableDataModule]:
    """The class of the data of a command line."""
    after = dict(pairwise(words))
    if "--data" in after:
        named = yaml.safe_load(Path(after["--data"]).read_text())["class_path"] if "/" in after["--data"] else after["--data"]
    else:
        config = yaml.safe_load(Path(after["--config"]).read_text()) if "--config" in after else {}
        named = config.get("data", {"class_path": "Glyphs"})["class_path"]
    return {cls.__name__: cls for cls in concrete_subclasses(ResumableDataModule)}[named.rsplit(".", 1)[-1]]


def run_report(words: list[str], request: pytest.FixtureRequest) -> None:
    assert app.report.__main__.main(words) == 0


def run_ruff(words: list[str], request: pytest.FixtureRequest) -> None:
    """It changes nothing here."""
    words = [*words, "--check"] if words[0] == "format" else words
    subprocess.run([sys.executable, "-m", "ruff", *words], cwd=ROOT, check=True)


# What is only parsed: the reason stands beside each


def parse_torchrun(words: list[str], request: pytest.FixtureRequest) -> None:
    """What it starts on each node is run."""
    job = torch.distributed.run.get_args_parser().parse_args(words)
    run_train(job.training_script_args, request)


def parse_benchmark(module: str) -> Callable[[list[str], pytest.FixtureRequest], None]:
    def parse(words: list[str], request: pytest.FixtureRequest) -> None:
        class Parsed(Exception):
            pass

        def parsed(parser: argparse.ArgumentParser, *_: Any) -> None:
            parse_args(parser, words)
            raise Parsed

        parse_args = argparse.ArgumentParser.parse_args
        patch = request.getfixturevalue("monkeypatch")
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        with pytest.raises(Parsed):
            import_module(module).main()

    return parse


def parse_wandb(words: list[str], request: pytest.FixtureRequest) -> None:
    from wandb.cli.cli import cli

    context = cli.make_context("wandb", [words[0]])
    cli.commands[words[0]].make_context(words[0], words[1:], parent=context)
    assert all(Path(word).exists() for word in words if word.startswith("configs/"))


def parse_pip(words: list[str], request: pytest.FixtureRequest) -> None:
    """All commands together install what pyproject.toml names."""
    assert words[0] == "install"
    installed = {
        Requirement(word).name
        for command in COMMANDS
        if (typed := program(command))[0] == "pip"
        for word in typed[2:]
        if not word.startswith("-")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    assert {Requirement(line).name for line in needed} <= installed | {"pillow"}  # which torchvision brings


def parse_pytest(words: list[str], request: pytest.FixtureRequest) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", default="")
    parser.add_argument("-k")
    marker = parser.parse_args(words).m.removeprefix("not ")
    assert not marker or any(line.startswith(f"{marker}:") for line in request.config.getini("markers"))


def parse_sbatch(words: list[str], request: pytest.FixtureRequest) -> None:
    """The job is a block of the same page, which the shell understands and whose command is run."""
    (job,) = [block for block in BLOCKS if block.file == words[0]]
    assert subprocess.run(["bash", "-n"], input=job.text, text=True).returncode == 0
    assert len(commands(job)) == 1


def parse_nothing(words: list[str], request: pytest.FixtureRequest) -> None:
    """The shell's own, or a module of Python's."""


RUN: dict[tuple[str, ...], Callable[[list[str], pytest.FixtureRequest], None]] = {
    ("train.py",): run_train,
    ("python", "-m", "app.report"): run_report,
    ("ruff",): run_ruff,
}
PARSED: dict[tuple[str, ...], tuple[str, Callable[[list[str], pytest.FixtureRequest], None]]] = {
    ("torchrun",): ("needs several machines", parse_torchrun),
    ("sbatch",): ("needs a cluster", parse_sbatch),
    ("wandb",): ("needs a login, a network or a terminal", parse_wandb),
    ("pip",): ("needs a network", parse_pip),
    ("python3", "-m", "venv"): ("makes an environment", parse_nothing),
    (".",): ("enters an environment", parse_nothing),
    ("pytest",): ("this is it", parse_pytest),
    ("python", "-m", "pytest"): ("this is it", parse_pytest),
}
for name in (
    "continual",
    "data",
    "end_to_end",
    "hypergradients",
    "meta_continual",
    "results",
    "rows",
    "scaling",
    "slow_disk",
    "startup",
    "throughput",
):
    parse = parse_benchmark(f"benchmarks.{name}")
    PARSED["python", "-m", f"benchmarks.{name}"] = ("takes minutes; tests/benchmarks run it at its smallest", parse)
for name in ("blocks", "many_streams"):
    PARSED["python", "-m", f"benchmarks.{name}"] = ("takes minutes", parse_benchmark(f"benchmarks.{name}"))


@pytest.mark.parametrize("command", list(cases()))
def test_a_command(command: Command, workspace: Path, request):
    words = program(command)
    ways = RUN | {start: way for start, (_, way) in PARSED.items()}
    for start, way in ways.items():
        if words[: len(start)] == start:
            # As the shell does, a pattern becomes the files that it matches.
            return way([place for word in words[len(start) :] for place in glob(word) or [word]], request)
    pytest.fail(
        f"{command.place}: no test knows how to run `{command.text}`; say so in RUN, or with the reason in PARSED, of {__file__}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page(page: Path, workspace: Path):
    """The blocks of a page one after the other, as a person would type them."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        if block.page == page and block.language == "python" and not block.file:
            exec(compile(block.text, block.place, "exec"), names)


def test_every_block_has_a_language_that_is_looked_at():
    assert not [block.place for block in BLOCKS if block.language not in ("bash", "python", "yaml")]
