"""What a resumed fit may change, and what not: it ends in the weights of a run that was never stopped, or it is refused."""

from typing import Any

from app.errors import InputError

# Options that change neither what is trained nor on what; all other ones of the trainer are free as well.
FREE_OF_MODEL = (
    "tasks_per_chunk",
    "stacking",
    "compile",
    "checkpoint_inner_steps",
    "hypergradient",
    "num_eval_samples",
    "support_copies",
    "backbone.weights",  # they are the checkpoint's
    "eval_",
)
FREE_OF_DATA = ("data_dir", "cache_dir", "path", "num_workers", "val_", "test_episodes", "test_num_classes", "encoder.weights")
OF_TRAINER = ("precision", "gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
# Numbers of the outer optimiser that a person turns while a run goes on; its state suits any of them.
RATES = tuple(
    f"{optimizer}.{rate}"
    for optimizer in ("model.optimizer", "model.method.optimizer")
    for rate in ("lr", "weight_decay", "betas", "eps")
)


def check_same_training(before: dict[str, Any], now: dict[str, Any], source: str) -> None:
    """Raises an InputError where options on which the weights depend differ from those of the checkpoint.

    Args:
        before: the config in the checkpoint.
        now: the config of the fit that is to go on from there.
        source: the checkpoint, for the message.
    """
    trained, wanted = _of_training(before), _of_training(now)
    for option, value in wanted.items():
        if option in trained and trained[option] != value and option not in RATES:  # a newer version may have further options
            raise InputError(
                f"--{option} is {_shown(value)}, and {source} was trained with {_shown(trained[option])}; leave it out, or start "
                "a new run in another --trainer.default_root_dir"
            )


def changed_rates(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The numbers of the outer optimiser that a resumed fit changes: both values by the option's name.

    Args:
        before: the config in the checkpoint.
        now: the config of the fit that goes on from there.
    """
    trained, wanted = _of_training(before), _of_training(now)
    return {
        name: (trained[name], wanted[name])
        for name in RATES
        if name in trained.keys() & wanted.keys() and trained[name] != wanted[name]
    }


def _of_training(config: dict[str, Any]) -> dict[str, Any]:
    """The options on which the weights depend, by their names on the command line."""
    model, data = (_options(config.get(section), section) for section in ("model", "data"))
    trainer = config.get("trainer") or {}
    return (
        {"seed_everything": config.get("seed_everything")}
        | {name: value for name, value in model.items() if not name.startswith(tuple(f"model.{free}" for free in FREE_OF_MODEL))}
        | {name: value for name, value in data.items() if not name.startswith(tuple(f"data.{free}" for free in FREE_OF_DATA))}
        | {f"trainer.{name}": trainer.get(name) for name in OF_TRAINER}
    )


def _options(content: Any, option: str) -> dict[str, Any]:
    """The leaves of a section by their names; a class by that of its option."""
    if not isinstance(content, dict):
        return {option: content}
    found: dict[str, Any] = {}
    for name, value in content.items():
        if name == "class_path":
            found[option] = value
        elif name == "init_args":
            for key, part in (value or {}).items():
                found |= _options(part, f"{option}.{key}")
        else:
            found |= _options(value, f"{option}.{name}")
    return found


def _shown(value: Any) -> Any:
    return "null" if value is None else str(value).rsplit(".", 1)[-1] if _is_class(value) else value


def _is_class(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("app.", "datamodules.", "torch."))
