"""Weights & Biases: offline without a login, one run however often it is resumed."""

import json
import os
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from app.errors import InputError


def logged_in() -> bool:
    """Whether an API key is at hand, in the environment or in ~/.netrc as `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc().hosts
    except (OSError, NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def check_logger(class_path: str) -> None:
    """Raises an InputError where a logger needs what is not installed."""
    if class_path.endswith(".TensorBoardLogger") and not any(map(find_spec, ("tensorboard", "tensorboardX"))):
        raise InputError(
            "--trainer.logger TensorBoardLogger needs the package tensorboard; install it (uv pip install tensorboard), or take "
            "CSVLogger"
        )


class RunLogger(WandbLogger):
    """Logs to Weights & Biases, offline where there is no login; folder and run id come from the run itself.

    What an interrupted fit logged after its last checkpoint is not logged again when that fit is resumed.

    Args:
        project: W&B project.
        name: display name of the run, null for W&B's own.
        offline: null for offline without a login, online with one.
        log_model: whether best.ckpt is uploaded as an artifact of the run at the end of fit; not for an offline run.
        tags: of the run.
        save_dir: folder of the run; given by the command line.
        id: of the run; given by the command line, from the checkpoint when a fit is resumed.
    """

    def __init__(
        self,
        project: str = "meta-learning",
        name: str | None = None,
        offline: bool | None = None,
        log_model: bool = False,
        tags: list[str] | None = None,
        save_dir: str = ".",
        id: str | None = None,
    ):
        if offline is None:
            offline = os.environ.get("WANDB_MODE") == "offline" or not logged_in()
            if offline:
                rank_zero_only(print)("W&B: no login, the run is recorded offline")
        if log_model and offline:
            raise InputError(
                "--trainer.logger.log_model true uploads checkpoints, and this run is offline; log in first (wandb login), or "
                "leave it out"
            )
        super().__init__(
            name=name,
            save_dir=save_dir,
            id=id,
            offline=offline,
            project=project,
            log_model=log_model,
            tags=tags,
            settings=_quiet(),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning always passes what wandb warns of
        self.offline = offline
        self._journal = Path(save_dir) / "wandb" / f"{id}.logged.json"
        self._logged_before: dict[str, int] = json.loads(self._journal.read_text()) if self._journal.exists() else {}
        self._logged = dict(self._logged_before)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """The config; W&B keeps what a sweep has chosen and drops a section of the same name, whose parts get dotted names."""
        chosen = set(self.experiment.config.keys()) if self.experiment.sweep_id else set()
        parts = [_dotted(name, params[name]) for name in chosen & params.keys()]
        params = {name: value for part in (params, *parts) for name, value in part.items() if name not in chosen}
        super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step is not None:
            metrics = {name: value for name, value in metrics.items() if step > self._logged_before.get(name, -1)}
            if not metrics:
                return
            self._logged.update(dict.fromkeys(metrics, step))
        super().log_metrics(metrics, step)
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        beside = self._journal.with_suffix(".tmp")
        beside.write_text(json.dumps(self._logged))
        beside.replace(self._journal)

    @property
    def pieces(self) -> list[Path]:
        """The folders of this run's data, one for each process that added to it, oldest first."""
        return sorted((Path(self.save_dir) / "wandb").glob(f"*run-*-{self.version}"))


def _dotted(name: str, value: Any) -> dict[str, Any]:
    """A section as its entries, `name.key`, and theirs."""
    if not isinstance(value, dict):
        return {name: value}
    return {below: entry for key, part in value.items() for below, entry in _dotted(f"{name}.{key}", part).items()}


def _quiet() -> Any:
    from wandb import Settings

    return Settings(silent=True, console="off", x_disable_stats=False)
