"""A file by a checkpoint's name is whole, whatever happens to the write."""

import errno
import io
import os
from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, SINUSOID, train

from app.errors import InputError
from callbacks.checkpoint import AtomicCheckpointIO

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
