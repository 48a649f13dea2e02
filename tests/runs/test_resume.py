"""A run that was broken off and resumed ends as if nothing had happened."""

import json
import random
import shutil
import signal
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import QUIET, SINUSOID, start, train

from datamodules.sinusoid import Sinusoid

NUM_STEPS, VAL_INTERVAL, TASKS = 23, 5, 4
SCHEDULE = "--model.lr_scheduler=app.learners.lr_schedule.CosineDecay"
MODELS = {
    "MAML": ["--model=MAML", "--model.inner_lr=0.01", SCHEDULE],
    "MetaSGD": ["--model=MetaSGD", "--model.step_size_range=[0.01,0.01]", SCHEDULE],
    "NP": ["--model=NP", "--model.hidden_size=8", "--model.latent_size=4", "--model.num_eval_samples=3", SCHEDULE],
    "Reptile": ["--model=Reptile", "--model.inner_batch_size=5", "--model.inner_steps=3"],
}
RUN = [
    *SINUSOID,
    *QUIET,
    f"--trainer.max_steps={NUM_STEPS}",
    f"--trainer.val_check_interval={VAL_INTERVAL}",
    "--trainer.callbacks+=LastCheckpoint",
    "--trainer.callbacks.every_steps=3",
]


def fit(folder: Path, model: str, *args: Any) -> list[str]:
    """A command line that leaves a diary in the folder of the run."""
    diary = ["--trainer.callbacks+=helpers.faults.Diary", f"--trainer.callbacks.path={folder.with_suffix('.diary')}"]
    return ["fit", *RUN, *MODELS[model], f"--trainer.default_root_dir={folder}", *diary, *args]


def fault(hook: str, step: int, kind: str) -> list[str]:
    options = {"hook": hook, "step": step, "kind": kind}
    return [
        "--trainer.callbacks+=helpers.faults.Fault",
        *(f"--trainer.callbacks.{name}={value}" for name, value in options.items()),
    ]


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)


def outcome(folder: Path) -> dict:
    """All that a later step, or a person, can see of a run: of both checkpoints, and of the validations."""
    checkpoints = [torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=False) for name in ("last", "best")]
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "Sinusoid")
    best = next(state for name, state in checkpoints[0]["callbacks"].items() if "BestCheckpoint" in name)
    return {
        "checkpoints": [{key: checkpoint[key] for key in keys} for checkpoint in checkpoints],
        "best": (float(best["best_model_score"]), Path(best["best_model_path"]).name),
        "validations": surviving(folder, "validation"),
    }


def surviving(folder: Path, event: str) -> list[dict]:
    """The entries of the diary that lead to the end: what a resumed fit went back behind is gone."""
    entries: list[dict] = []
    for line in folder.with_suffix(".diary").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "start":
            assert entry["cursor"] == entry["step"]
            entries = [earlier for earlier in entries if earlier["step"] <= entry["step"]]
        elif entry["event"] == event:
            if event == "validation":  # one that was broken off is made again
                entries = [earlier for earlier in entries if earlier["step"] != entry["step"]]
            entries.append(entry)
    return entries


def assert_same(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for position, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{position}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    else:
        assert a == b, where


def assert_every_episode_once(folder: Path) -> None:
    steps = surviving(folder, "step")
    assert [entry["step"] for entry in steps] == list(range(1, NUM_STEPS + 1))
    data = Sinusoid(queries=5)
    episodes = [torch.from_numpy(data.draw("train", index).support_x).float() for index in range(NUM_STEPS * TASKS)]
    used = [value for entry in steps for value in entry["first_inputs"]]
    assert used == [float(support_x[0, 0]) for support_x in episodes]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Outcome and folder of a run of a model that nothing disturbed."""

    @cache
    def run(model: str) -> tuple[dict, Path]:
        folder = tmp_path_factory.mktemp("uninterrupted") / model
        assert train(*fit(folder, model)).status == 0
        assert_every_episode_once(folder)
        return outcome(folder), folder

    return run


@pytest.mark.slow
def test_killed_three_times_in_a_row(uninterrupted, tmp_path):
    folder, log, draw = tmp_path / "run", tmp_path / "log", random.Random(5)
    batch_hooks = ["on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end"]
    kills = [(draw.choice(batch_hooks), draw.randint(4, 8)), ("on_validation_epoch_end", 10), ("writing", draw.randint(14, 18))]
    ids = set()
    for hook, step in kills:
        resume = ["--ckpt_path=last"] if ids else []
        process = start(*fit(folder, "MAML"), *fault(hook, step, "kill"), *resume, output=log)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        assert "optimizer_states" in last(folder)  # a whole file, whatever was under way
        ids.add(last(folder)["run_id"])
    process = start(*fit(folder, "MAML"), "--ckpt_path=last", output=log)
    process.join(120)
    assert process.exitcode == 0, log.read_text()
    assert_same(outcome(folder), uninterrupted("MAML")[0])
    assert_every_episode_once(folder)
    assert {last(folder)["run_id"]} == ids
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


# The step of last.ckpt after a fault in this hook: a batch's own come before its update, or after it.
STEPS = {
    "on_train_batch_start": 13,
    "on_before_zero_grad": 13,
    "on_before_optimizer_step": 13,
    "on_train_batch_end": 13,
    "on_validation_start": 15,
    "on_validation_batch_end": 15,
    "on_validation_end": 15,
}
BROKEN = [
    ("MAML", "on_train_batch_start"),
    ("MAML", "on_before_optimizer_step"),
    ("MAML", "on_train_batch_end"),
    ("MAML", "on_validation_batch_end"),
    ("MetaSGD", "on_validation_start"),
    ("NP", "on_validation_end"),
    ("Reptile", "on_before_zero_grad"),
]


@pytest.mark.slow
@pytest.mark.parametrize("model, hook", BROKEN)
def test_exception(model, hook, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a fault in a callback"):
        train(*fit(folder, model), *fault(hook, STEPS[hook], "exception"))
    assert last(folder)["global_step"] == STEPS[hook]
    assert train(*fit(folder, model), "--ckpt_path=last").status == 0
    assert_same(outcome(folder), uninterrupted(model)[0])
    assert_every_episode_once(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, status, hook, stops_at",
    [
        ("term", 143, "on_before_backward", 14),
        ("term", 143, "on_validation_start", 15),
        ("int", 130, "on_train_batch_end", 13),
    ],
)
def test_signal_saves_and_stops(kind, status, hook, stops_at, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    stopped = train(*fit(folder, "MAML"), *fault(hook, min(stops_at, STEPS.get(hook, 13)), kind))
    assert stopped.status == status
    assert f"after step {stops_at}" in stopped.err and "--ckpt_path last" in stopped.err
    assert len(stopped.err.strip().splitlines()) <= 3
    assert last(folder)["global_step"] == last(folder)["Sinusoid"]["cursor"] == stops_at
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before
    # As the message says, by the config of the run; it holds the fault as well, whose step has passed.
    config = ["--config", folder / "config.yaml"] if hook == "on_train_batch_end" else fit(folder, "MAML")[1:]
    assert train("fit", *config, "--ckpt_path=last").status == 0
    assert_same(outcome(folder), uninterrupted("MAML")[0])
    assert_every_episode_once(folder)


@pytest.mark.slow
def test_last_checkpoint_exists_before_the_first_step(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(*fit(folder, "MAML"), *fault("on_train_batch_start", 0, "kill"), output=log)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert last(folder)["global_step"] == 0


def test_last_checkpoint_is_the_last_step(tmp_path):
    folder = tmp_path / "run"
    assert train(*fit(folder, "MAML"), "--trainer.callbacks+=LastCheckpoint", "--trainer.max_steps=7").status == 0
    assert last(folder)["global_step"] == 7
    folder = tmp_path / "early"
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mse", "--trainer.callbacks.min_delta=1000"]
    assert train(*fit(folder, "MAML"), *stop, "--trainer.callbacks.patience=1", "--trainer.val_check_interval=4").status == 0
    assert last(folder)["global_step"] == 8


def files(folder: Path) -> dict[Path, tuple[str, int]]:
    """Content and time of every file."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: (sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def finished(uninterrupted, tmp_path) -> Path:
    """A copy of a finished run."""
    _, folder = uninterrupted("MAML")
    return Path(shutil.copytree(folder, tmp_path / "run"))


def test_a_finished_run_stays_as_it_is(finished):
    before = files(finished)
    again = train(*fit(finished, "MAML"), "--ckpt_path=last")
    assert again.status == 0 and f"{NUM_STEPS} of {NUM_STEPS} steps" in again.out
    assert files(finished) == before


def test_a_second_fit_into_a_run_is_refused(finished):
    before = files(finished)
    refused = train(*fit(finished, "MAML"))
    assert refused.status == 1
    assert str(finished) in refused.err and "--ckpt_path last" in refused.err and len(refused.err.splitlines()) == 1
    assert files(finished) == before


def test_other_data_is_refused(finished, monkeypatch):
    before = files(finished)
    old = Sinusoid.manifest_hash[:12]
    monkeypatch.setattr(Sinusoid, "manifest_hash", "cosinusoid: other data")
    refused = train(*fit(finished, "MAML"), "--ckpt_path=last", "--trainer.max_steps=30")
    assert refused.status == 1
    assert old in refused.err and "cosinusoid: " in refused.err and len(refused.err.splitlines()) == 1
    assert files(finished) == before


def test_another_data_set_is_refused(finished):
    checkpoint = last(finished)
    checkpoint["Sawtooth"] = checkpoint.pop("Sinusoid")
    torch.save(checkpoint, finished / "checkpoints" / "last.ckpt")
    before = files(finished)
    refused = train(*fit(finished, "MAML"), "--ckpt_path=last", "--trainer.max_steps=30")
    assert refused.status == 1
    assert "--data Sinusoid" in refused.err and len(refused.err.splitlines()) == 1
    assert files(finished) == before
