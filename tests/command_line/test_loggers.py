"""Every logger of a run gets its folder and its id."""

import pytest
from jsonargparse import Namespace

from app.command_line.loggers import settle_loggers
from app.errors import InputError


def logger(cls: str, **options) -> Namespace:
    return Namespace(class_path=f"lightning.pytorch.loggers.{cls}", init_args=Namespace(**options))


def test_one_a_list_or_none():
    one = logger("CSVLogger", save_dir=".", name="x")
    settle_loggers(one, "run", "5way")
    assert one.init_args.as_dict() == {"save_dir": "run", "name": "x"}
    several = [
        logger("CSVLogger", save_dir="."),
        logger("WandbLogger", save_dir=".", id=None, offline=True),
        logger("CometLogger"),
    ]
    settle_loggers(several, "run", "5way")
    assert [own.init_args.as_dict() for own in several] == [
        {"save_dir": "run"},
        {"save_dir": "run", "id": "5way", "offline": True},
        {},
    ]
    for nothing in (True, False, None, []):
        settle_loggers(nothing, "run", "5way")


def test_wandbs_own_logger_without_a_login(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"--trainer\.logger WandbLogger needs a login"):
        settle_loggers([logger("WandbLogger", offline=False)], "run", "5way")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    settle_loggers(logger("WandbLogger", offline=False), "run", "5way")
