"""A logger that fails in mid-run is told of once, and ends nothing."""

import errno
import json
import os

from helpers.command_line import QUIET, SINUSOID, train
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from app.runs.metrics_file import MetricsFile
from app.runs.recorded_metrics import read_metrics
from app.runs.steady_logger import is_open, steady

FIT = [*SINUSOID, *(option for option in QUIET if "logger" not in option), "--trainer.log_every_n_steps=1"]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(error: Exception):
    def call(*_, **__):
        raise error

    return call


def test_each_call(tmp_path, monkeypatch):
    calls = ("log_metrics", "log_hyperparams", "save", "finalize")
    for call in calls:
        monkeypatch.setattr(CSVLogger, call, failing(FULL))
    run = train(*FIT, "--trainer.max_steps=3", "--trainer.logger=CSVLogger", f"--trainer.default_root_dir={tmp_path}")
    assert run.status == 0, run.err
    for call in calls:
        assert run.err.count(f"{call} of CSVLogger is left out: [Errno 28] No space left on device") == 1
    assert json.loads((tmp_path / "results.json").read_text())["num_episodes"] == 8
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")][:3] == [0, 1, 2]


def test_a_record_that_cannot_be_opened(tmp_path, monkeypatch):
    """W&B without a folder or a network."""
    monkeypatch.setattr("wandb.init", failing(RuntimeError("no network,\nnor a disk")))
    run = train(*FIT, "--trainer.max_steps=3", f"--trainer.default_root_dir={tmp_path}")
    assert run.status == 0, run.err
    assert "the record of RunLogger is left out: no network, nor a disk" in run.err and run.err.count("left out") == 1
    assert "W&B (offline)" not in run.out and (tmp_path / "results.json").exists()


def test_what_is_steady_is_what_it_was(tmp_path):
    logger = steady(CSVLogger(tmp_path, "name", "version"))
    assert isinstance(logger, CSVLogger) and type(logger).__name__ == "CSVLogger" and is_open(logger)
    logger.log_metrics({"a": 1.0}, 3)
    logger.save()
    assert (tmp_path / "name" / "version" / "metrics.csv").read_text().splitlines() == ["a,step", "1.0,3"]
    assert isinstance(steady(WandbLogger(save_dir=tmp_path, offline=True)), WandbLogger)


def test_a_line_of_scalars_is_whole_or_absent(tmp_path, monkeypatch, capsys):
    """A disk that takes half a line, and is free again later."""
    logger, real = steady(MetricsFile(tmp_path, continues=False)), type(tmp_path).open
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("failed")

    class Full:
        def __init__(self, *args, **kwargs):
            self.file = real(*args, **kwargs)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, line):
            return self.file.write(line[:10])

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", lambda *args, **kwargs: Full(*args, **kwargs))
        logger.log_metrics({"a": 2.0}, 1)
        logger.finalize("failed")
    assert "finalize of MetricsFile is left out: 10 of" in capsys.readouterr().err
    logger.log_metrics({"a": 3.0}, 2)
    logger.finalize("success")
    assert [(row["step"], row["a"]) for row in read_metrics(logger.path)] == [(0, 1.0), (2, 3.0)]
