"""How many processes a run starts by itself."""

from types import SimpleNamespace

import pytest

from app.command_line.devices import devices
from datamodules.sinusoid import Sinusoid


@pytest.fixture
def data(monkeypatch) -> Sinusoid:
    """Of 12 tasks a step, on a machine of 8 cores."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    return Sinusoid(meta_batch_size=12)


def asked(**given) -> SimpleNamespace:
    return SimpleNamespace(**{"accelerator": "cpu", "devices": "auto", "num_nodes": 1, "strategy": "auto"} | given)


def test_blocks_are_shared_by_as_many_processes_as_there_are_cores(data, monkeypatch, capsys):
    assert devices(asked(), 1, data) == {"accelerator": "cpu", "devices": 6}  # 12 blocks
    assert "6 processes of one thread" in capsys.readouterr().out
    assert devices(asked(), 3, data)["devices"] == 4
    assert devices(asked(), 12, data)["devices"] == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)  # of a process that another one started
    assert devices(asked(), 3, data)["devices"] == 4


@pytest.mark.parametrize("given", [{"devices": 2}, {"num_nodes": 2}, {"strategy": "fsdp"}, {"accelerator": "cuda"}])
def test_what_was_asked_for_stays(given, data):
    assert "devices" not in devices(asked(**given), 3, data)


def test_without_blocks_one_process_has_all_threads(data):
    assert "devices" not in devices(asked(), None, data)
