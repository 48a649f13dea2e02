"""What only shows never ends a run."""

import json

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


def test_the_users_own_settings_of_matplotlib(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    run = train(
        *SHORT, *[option for option in QUIET if "callbacks" not in option], *PICTURES, "--trainer.default_root_dir", tmp_path
    )
    assert run.status == 0 and len(list((tmp_path / "pictures").glob("test_*.png"))) == 2
