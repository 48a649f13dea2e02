"""What ends a run: a number of steps, or a time."""

from lightning import Trainer
from lightning.pytorch.callbacks import Timer


def last_step(trainer: Trainer) -> int | None:
    """The step that ends the run, by max_steps or the length of the data; null where none does."""
    limits = (trainer.max_steps if trainer.max_steps > 0 else None, getattr(trainer.datamodule, "num_steps", None))
    return min((limit for limit in limits if limit is not None), default=None)


def time_limits(trainer: Trainer) -> list[tuple[float, float]]:
    """(seconds so far, seconds left) of every time that ends the run; those of earlier parts of a resumed fit count."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    limits = [(timer.time_elapsed(), timer.time_remaining()) for timer in timers]
    return [(elapsed, left) for elapsed, left in limits if left is not None]


def time_is_up(trainer: Trainer) -> bool:
    """Whether a time has ended the run, by the clock of this process."""
    return any(left <= 0 for _, left in time_limits(trainer))


def ask_nobody_of_time(trainer: Trainer) -> None:
    """Keeps Lightning's timers from telling all processes at every step whether the time is up."""
    for callback in trainer.callbacks:
        if isinstance(callback, Timer):
            callback.on_train_batch_end = lambda *_, **__: None


def seconds_left(trainer: Trainer, step: int, seconds_per_step: float) -> float | None:
    """Seconds until the run ends, by whatever ends it first; null where nothing does.

    Args:
        trainer: of the run.
        step: that was taken last.
        seconds_per_step: that steps take, with all that comes between them.
    """
    end = last_step(trainer)
    found = [left for _, left in time_limits(trainer)]
    found += [] if end is None else [(end - step) * seconds_per_step]
    return max(min(found), 0.0) if found else None
