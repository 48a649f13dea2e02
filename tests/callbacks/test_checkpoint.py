"""A file by a checkpoint's name is whole, whatever happens to the write."""

import errno
import io
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.command_line import QUIET, SINUSOID, train
from helpers.small import small_run
from lightning import Callback, Trainer

from app.errors import InputError
from callbacks.checkpoint import LastCheckpoint
from callbacks.checkpoint_files import AtomicCheckpointIO, BackgroundCheckpointIO, CannotWrite, copied
from callbacks.finite_guard import FiniteGuard
from callbacks.step_seed import StepSeed

SAVE = torch.save


def half_then(error: Exception):
    """A torch.save that stops in the middle."""

    def save(checkpoint: dict, file) -> None:
        content = io.BytesIO()
        SAVE(checkpoint, content)
        file.write(content.getvalue()[: content.tell() // 2])
        file.flush()
        raise error

    return save


FAULTS = {
    "disk full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "torch's archive": RuntimeError("[enforce fail at inline_container.cc:672]\nunexpected pos 640 vs 530"),
}


@pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)
def test_a_write_that_fails_keeps_the_file_before(error, tmp_path, monkeypatch):
    path, writer = tmp_path / "checkpoints" / "last.ckpt", AtomicCheckpointIO()
    monkeypatch.setattr(torch, "save", half_then(error))
    with pytest.raises(InputError, match="there was none before"):
        writer.save_checkpoint({"weight": torch.zeros(1000)}, path)
    assert list(path.parent.iterdir()) == []
    monkeypatch.setattr(torch, "save", SAVE)
    writer.save_checkpoint({"weight": torch.ones(1000)}, path)
    monkeypatch.setattr(torch, "save", half_then(error))
    with pytest.raises(InputError, match="is kept") as caught:
        writer.save_checkpoint({"weight": torch.zeros(1000)}, path)
    message = str(caught.value)
    assert str(path) in message and "--ckpt_path last" in message and "\n" not in message
    assert list(path.parent.iterdir()) == [path]
    assert torch.equal(torch.load(path)["weight"], torch.ones(1000))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*last.ckpt \(.*\); there was none before"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "file" / "last.ckpt")


def test_what_a_kill_left_is_replaced(tmp_path):
    (tmp_path / ".last.ckpt.part").write_text("half")
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


class SlowDisk:
    """An fsync that lasts until `go` is set; `writing` is set when one has begun."""

    def __init__(self, monkeypatch):
        self.writing, self.go = threading.Event(), threading.Event()
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, file: int) -> None:
        self.writing.set()
        assert self.go.wait(60)


def test_what_is_written_is_what_was_saved(tmp_path, monkeypatch):
    """Training goes on meanwhile, and changes the weights."""
    disk, writer = SlowDisk(monkeypatch), BackgroundCheckpointIO()
    weight = torch.ones(3)
    checkpoint = {"state_dict": {"weight": weight}, "seen": [1]}
    writer.save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    weight.zero_()
    checkpoint["seen"].append(2)
    assert disk.writing.wait(60) and not (tmp_path / "last.ckpt").exists()
    writer.save_checkpoint({"step": 1}, tmp_path / "best.ckpt")  # another file does not wait
    disk.go.set()
    writer.wait()
    saved = torch.load(tmp_path / "last.ckpt")
    assert torch.equal(saved["state_dict"]["weight"], torch.ones(3)) and saved["seen"] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_the_same_file_is_written_once_at_a_time(tmp_path, monkeypatch):
    disk, writer, last = SlowDisk(monkeypatch), BackgroundCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, last)
    again = threading.Thread(target=writer.save_checkpoint, args=({"step": 2}, last))
    again.start()
    assert disk.writing.wait(60)
    again.join(0.05)
    assert again.is_alive()
    disk.go.set()
    again.join(60)
    writer.wait()
    assert torch.load(last) == {"step": 2} and writer.seconds > 0


def test_what_takes_the_place_of_a_file_is_there_before_that_is_removed(tmp_path, monkeypatch):
    disk, writer = SlowDisk(monkeypatch), BackgroundCheckpointIO()
    (tmp_path / "old.ckpt").write_text("")
    writer.save_checkpoint({}, tmp_path / "new.ckpt")
    writer.remove_checkpoint(tmp_path / "old.ckpt")
    assert disk.writing.wait(60) and [path.name for path in tmp_path.glob("*.ckpt")] == ["old.ckpt"]
    disk.go.set()
    writer.teardown()
    assert [path.name for path in tmp_path.iterdir()] == ["new.ckpt"]


def test_a_write_that_failed_is_told_of_once(tmp_path, monkeypatch):
    writer = BackgroundCheckpointIO()
    monkeypatch.setattr(torch, "save", half_then(FAULTS["disk full"]))
    for tell in (writer.wait, writer.teardown, lambda: writer.save_checkpoint({}, tmp_path / "last.ckpt")):
        writer.save_checkpoint({}, tmp_path / "last.ckpt")
        if tell == writer.teardown:
            tell()
        else:
            with pytest.raises(CannotWrite, match=r"cannot write .*last.ckpt \(No space left on device\); there was none before"):
                tell()
        writer.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_copy_keeps_what_tensors_are_to_each_other():
    weight = torch.nn.Parameter(torch.arange(3.0))
    copy = copied({"a": weight, "b": [weight, {"c": 1}], "d": weight.detach()})
    assert copy["a"] is copy["b"][0] and copy["a"] is not weight and torch.equal(copy["d"], weight)


def test_disk_full_in_a_run(tmp_path, monkeypatch):
    run = ["fit", *SINUSOID, *QUIET, "--trainer.max_steps=6", "--trainer.val_check_interval=4"]
    folder = ["--trainer.default_root_dir", tmp_path / "run"]
    assert train(*run, *folder, "--trainer.max_steps=3", "--model.inner_lr=0.01").status == 0
    path: Path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", half_then(FAULTS["disk full"]))
    full = train(*run, *folder, "--model.inner_lr=0.01", "--ckpt_path=last")
    assert full.status == 1
    assert len(full.err.splitlines()) == 1
    assert "best.ckpt" in full.err and "No space left" in full.err and "--ckpt_path last" in full.err
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(torch, "save", SAVE)
    assert train(*run, *folder, "--model.inner_lr=0.01", "--ckpt_path=last").status == 0
    assert torch.load(path, weights_only=False)["global_step"] == 6


class Watch(Callback):
    """What lies in the folder of checkpoints after each step, while the disk is slow."""

    def __init__(self, disk: SlowDisk, steps: int):
        self.disk, self.steps, self.seen = disk, steps, []

    def on_train_batch_end(self, trainer, *_):
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        self.seen.append((trainer.global_step, torch.load(path, weights_only=False)["global_step"]))
        if trainer.global_step == self.steps:
            self.disk.go.set()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The fit ends when it is written."""
    disk, handler = SlowDisk(monkeypatch), signal.getsignal(signal.SIGTERM)
    disk.go.set()
    last, watch = LastCheckpoint(every_steps=2), Watch(disk, 4)
    start = last.on_train_start
    monkeypatch.setattr(last, "on_train_start", lambda *args: (start(*args), disk.go.clear()))
    algorithm, data = small_run("MAML", "regression")
    run = Trainer(
        accelerator="cpu",
        max_steps=5,
        max_epochs=-1,
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[BackgroundCheckpointIO()],
        callbacks=[StepSeed(), FiniteGuard(), watch, last],
    )
    run.fit(algorithm, data)
    assert watch.seen[:4] == [(1, 0), (2, 0), (3, 0), (4, 0)]  # of step 2 a checkpoint is under way
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == 5
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_checkpoint_is_begun_as_much_earlier_as_a_write_takes(monkeypatch):
    writer, last, saved = BackgroundCheckpointIO(), LastCheckpoint(every_seconds=10), []
    trainer = SimpleNamespace(strategy=SimpleNamespace(checkpoint_io=writer), datamodule=SimpleNamespace(cursor=0), world_size=1)
    monkeypatch.setattr(last, "_save", lambda *_, **__: saved.append(writer.seconds))
    for writer.seconds, age in ((0.0, 9.9), (1.0, 8.9), (1.0, 9.1), (60.0, 4.9), (60.0, 5.1), (0.0, 10.1)):
        last._saved_at, last._saved_step = time.monotonic() - age, 0
        last._save_or_stop(trainer)
    assert saved == [1.0, 60.0, 0.0]
