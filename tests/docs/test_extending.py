"""The examples of docs/extending.md work as they are written, in a copy of the project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import ROOT
from helpers.pages import blocks

PAGE = ROOT / "docs" / "extending.md"
# Where a test is made for each method, config, data set or command that is there.
TESTS = (
    *("algorithms/metric_based", "command_line/test_configs.py", "continual/test_continual_methods.py", "datamodules/base"),
    *("deploy/test_predictor.py", "docs/test_commands.py", "learners", "test_rooms.py"),
)
FILES = {block.file: block.text for block in blocks(PAGE) if block.file}
PARTS = ("app", "benchmarks", "callbacks", "configs", "datamodules", "docs", "tests", "README.md", "pyproject.toml", "train.py")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project with the files of the page in their places."""
    folder = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part)  # what is compiled goes along, which saves seconds
        else:
            shutil.copy(ROOT / part, folder)
    for name, text in FILES.items():
        assert (folder / name).parent.is_dir() and not (folder / name).exists(), name
        (folder / name).write_text(text)
    return folder


def run(copy: Path, *words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def test_there_is_an_example_of_each_kind():
    assert {Path(name).parts[0] for name in FILES} == {"app", "configs", "datamodules"} and len(FILES) == 9


def test_the_examples_are_written_as_the_rest(copy: Path):
    python = [name for name in FILES if name.endswith(".py")]
    run(copy, "ruff", "check", *python)
    run(copy, "ruff", "format", "--check", *python)


@pytest.mark.slow
def test_the_commands_of_the_page_run_and_the_tests_find_its_examples(copy: Path):
    """Two processes, which compare all algorithms, are left out; the rooms say whether the files stand where they may."""
    examples = "LinearFit or linear_fit or ScaledMeans or scaled_means or stripes or AveragedWeights"
    wanted = f"(a_command and extending) or a_room or ({examples}) and not extending and not two_processes_equal_one"
    run(copy, "pytest", "-n", "0", "-q", *(f"tests/{place}" for place in TESTS), "-k", wanted)
