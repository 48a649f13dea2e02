"""Weights & Biases: offline without a login, one run however often it is resumed."""

import glob
import json
import os
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from app.errors import InputError
from app.lightning_internals import never_anonymous

if TYPE_CHECKING:
    from wandb import Settings

PROJECT = "meta-learning"  # of W&B, where neither the command line nor its environment names one


def logged_in() -> bool:
    """Whether an API key is at hand, in the environment or in ~/.netrc as `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc().hosts
    except (OSError, NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def wandb_settings() -> "Settings":
    """What W&B's own files and environment variables say: mode, project, entity, name, tags and folder of a run.

    Raises:
        InputError: W&B cannot read one of them.
    """
    from wandb import Settings
    from wandb.errors import Error

    settings = Settings()
    try:
        settings.update_from_system_settings()
        settings.update_from_env_vars(os.environ)
    except (ValueError, Error) as error:
        raise InputError(
            f"a variable WANDB_... cannot be read by W&B ({' '.join(str(error).split())[:200]}); correct it"
        ) from error
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        settings.mode = "disabled"
    return settings


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

    Where an option is null, what W&B's environment variables and settings say counts: WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME,
    WANDB_TAGS, WANDB_DIR, WANDB_MODE.

    Args:
        project: W&B project; null for meta-learning where W&B's settings name none.
        entity: user or team that the project is of; null for W&B's default.
        name: display name of the run; null for W&B's own.
        offline: null for offline without a login, online with one.
        log_model: whether best.ckpt is uploaded as an artifact of the run at the end of fit; not for an offline run.
        tags: of the run.
        save_dir: folder of the run; given by the command line.
        id: of the run; given by the command line, from the checkpoint when a fit is resumed.
    """

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        offline: bool | None = None,
        log_model: bool = False,
        tags: list[str] | None = None,
        save_dir: str = ".",
        id: str | None = None,
    ):
        chosen = wandb_settings()
        project, entity = project or chosen.project or PROJECT, entity or chosen.entity
        name, tags = name or chosen.run_name, list(tags or chosen.run_tags or ())
        save_dir = os.environ.get("WANDB_DIR") or save_dir
        _check_names(project, tags, id)
        self.is_off = offline is None and chosen.mode == "disabled"
        if offline is None:
            offline = chosen.mode != "online" or not logged_in()
            if self.is_off:
                rank_zero_only(print)("W&B is switched off by its own settings (WANDB_MODE or WANDB_DISABLED)")
            elif chosen.mode == "online" and offline:
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
            entity=entity,
            log_model=log_model,
            tags=tags,
            settings=_quiet(),
        )
        never_anonymous(self)
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
            # A test may be repeated on purpose.
            is_new = {name: step > self._logged_before.get(name, -1) or name.startswith("test/") for name in metrics}
            metrics = {name: value for name, value in metrics.items() if is_new[name]}
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
        return sorted((Path(self.save_dir) / "wandb").glob(f"*run-*-{glob.escape(str(self.version))}"))


def _check_names(project: str, tags: list[str], run_id: str | None) -> None:
    """Raises an InputError where W&B would refuse a name, after the run has begun."""
    if any(sign in project for sign in "/\\#?%:") or len(project) > 128:
        raise InputError(
            f"--trainer.logger.project {project} is no name of a W&B project; give at most 128 characters without / \\ # ? % :, "
            "and the team by --trainer.logger.entity"
        )
    if wrong := [tag for tag in tags if not 1 <= len(tag) <= 64]:
        raise InputError(f"--trainer.logger.tags has one of {len(wrong[0])} characters, {wrong[0][:20]!r}; give 1 to 64")
    if run_id is not None and (any(sign in run_id for sign in "/\\#?%:") or not 1 <= len(run_id) <= 64):
        raise InputError(f"the run's id {run_id!r} (WANDB_RUN_ID) is none of W&B; give 1 to 64 characters without / \\ # ? % :")


def _dotted(name: str, value: Any) -> dict[str, Any]:
    """A section as its entries, `name.key`, and theirs."""
    if not isinstance(value, dict):
        return {name: value}
    return {below: entry for key, part in value.items() for below, entry in _dotted(f"{name}.{key}", part).items()}


def _quiet() -> Any:
    from wandb import Settings

    return Settings(silent=True, console="off", x_disable_stats=False)
