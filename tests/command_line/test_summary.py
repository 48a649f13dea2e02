"""The last lines of a run: each command in them runs as it is printed."""

import shlex
from pathlib import Path
from types import SimpleNamespace

from app.command_line.summary import print_summary
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
