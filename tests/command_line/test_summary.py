"""The last lines of a run: how good it is, where everything lies, and how to go on."""

import shlex

import pytest
from helpers.command_line import QUIET, SINUSOID, train


def last_lines(out: str) -> dict[str, str]:
    """What the summary says, by its labels, in its order."""
    lines = [line.strip().partition("  ") for line in out.splitlines()]
    names = [name for name, _, _ in lines]
    return {name: text for name, _, text in lines[len(names) - 1 - names[::-1].index("score") :]}


@pytest.mark.parametrize(("verb", "score"), [("", "test mse "), ("fit", "val/mse ")])
def test_the_score_comes_first(verb, score, tmp_path):
    run = [*SINUSOID, *QUIET, "--model.inner_lr=0.01", "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    done = train(*([verb] if verb else []), *run, f"--trainer.default_root_dir={tmp_path / 'a run'}")
    assert done.status == 0
    said = last_lines(done.out)
    results = [] if verb else ["results"]
    assert list(said) == ["score", "run", "checkpoints", *results, "resume", "report", "test"]
    assert said["score"].startswith(score) and (verb or "8 episodes" in said["score"])
    assert str(tmp_path / "a run" / "config.yaml") in shlex.split(said["resume"])
    assert shlex.split(said["report"])[-1] == str(tmp_path / "a run")
