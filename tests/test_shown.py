"""What only shows never ends a run."""

import errno
import json
from pathlib import Path

from helpers.command_line import QUIET, train

SHORT = ["--model=MAML", "--data=Sinusoid", "--trainer.max_steps=2", "--data.test_episodes=4", "--data.val_episodes=4"]
PICTURES = ["--trainer.callbacks+=AdaptationCurve", "--trainer.callbacks+=EpisodeGallery"]


def test_a_picture_that_cannot_be_drawn(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Failed to process string with tex because latex could not be found")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    run = train(
        *SHORT, *[option for option in QUIET if "callbacks" not in option], *PICTURES, "--trainer.default_root_dir", tmp_path
    )
    assert run.status == 0 and "a picture of AdaptationCurve is left out: Failed to process string with tex" in run.err
    assert json.loads((tmp_path / "results.json").read_text())["num_episodes"] == 4


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    """No half picture is left; the table is printed, the results that were there before are kept, and the end says what to do."""
    fit = [*SHORT, *[option for option in QUIET if "callbacks" not in option], *PICTURES, "--trainer.default_root_dir", tmp_path]
    assert train("fit", *fit).status == 0
    (tmp_path / "results.json").write_text("{}")
    write, kept = Path.write_text, sorted(tmp_path.rglob("*.png"))

    def full(*args, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(figure, path, **_):
        path.write_bytes(b"half")
        full()

    monkeypatch.setattr(Path, "write_text", lambda path, *args, **more: (full if "results" in path.name else write)(path, *args))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    run = train("test", "--config", tmp_path / "config.yaml", "--ckpt_path", tmp_path / "checkpoints" / "last.ckpt")
    assert run.status == 1 and "error: cannot write" in run.err.splitlines()[-1] and "No space left on device" in run.err
    assert "after 1 step" in run.out or "mse" in run.out
    assert (tmp_path / "results.json").read_text() == "{}" and sorted(tmp_path.rglob("*.png")) == kept
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".results")] == []


def test_the_users_own_settings_of_matplotlib(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    run = train(
        *SHORT, *[option for option in QUIET if "callbacks" not in option], *PICTURES, "--trainer.default_root_dir", tmp_path
    )
    assert run.status == 0 and len(list((tmp_path / "pictures").glob("test_*.png"))) == 2
