"""The last lines of a run: each command in them runs as it is printed."""

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.command_line.summary import print_summary
from app.runs import commands
from app.runs.tracking import RunLogger


class Offline(RunLogger):
    """A logger without W&B."""

    offline, version = True, "5way [1]"

    def __init__(self, save_dir: Path):
        self._save_dir = str(save_dir)


def test_a_folder_with_spaces(tmp_path, capsys):
    run = tmp_path / "my run"
    pieces = [run / "wandb" / f"offline-run-{time}-5way [1]" for time in ("1", "2")]
    for folder in (*pieces, run / "checkpoints"):
        folder.mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last.ckpt"):
        (run / name).touch()
    print_summary(SimpleNamespace(default_root_dir=str(run), loggers=[Offline(run)], callbacks=[]))
    lines = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines())
    words = {name: shlex.split(text) for name, text in lines.items()}
    assert words["view"][-2:] == ["leet", str(pieces[-1])]
    assert words["upload"][-3:] == ["sync", *map(str, pieces)]
    assert words["resume"][-4:] == ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    assert words["test"][-3:] == [str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]


def test_where_they_run(tmp_path, monkeypatch):
    """In the folder of the program by short names; elsewhere the program and the environment are named."""
    root, own = commands.ROOT, Path(sys.executable).with_name("python")
    monkeypatch.setattr("shutil.which", lambda name: str(own.with_name(name)))
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.chdir(root)
    assert (commands.train(), commands.report(Path("a b"))) == ("python train.py", "python -m app.report 'a b'")
    monkeypatch.chdir(tmp_path)
    assert commands.train() == f"python {root}/train.py"
    assert commands.report(Path("a")) == f"PYTHONPATH={root} python -m app.report a"
    monkeypatch.setenv("UV", "/bin/uv")
    assert commands.train() == f"uv run --project {root} {root}/train.py"
    assert commands.wandb() == f"uv run --project {root} wandb"
    monkeypatch.chdir(root)
    assert (commands.train(), commands.report(Path("a"))) == ("uv run train.py", "uv run python -m app.report a")


@pytest.mark.parametrize("found", ["/usr/bin/python", None])
def test_another_python_is_found_by_that_name(found, tmp_path, monkeypatch):
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: found)
    own = tmp_path / "an environment" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.setattr("sys.executable", str(own))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(commands.train()) == ["an environment/bin/python", f"{commands.ROOT}/train.py"]
