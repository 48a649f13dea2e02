"""Another run's network as the start of this one."""

from pathlib import Path
from typing import Any

import torch

from app.errors import InputError
from app.learners.learner import Learner, Origin
from app.runs.processes import is_rank_zero
from app.runs.run import read_checkpoint

SHOWN = 4  # tensors that are named one by one


def begin_elsewhere(learner: Learner, checkpoint: dict[str, Any] | None) -> None:
    """Gives the parts of a learner that are told to the weights of other runs, in every process, and says what was taken.

    Args:
        learner: says in `origins` which parts.
        checkpoint: of the run itself, where it goes on; what it began with is of no account then.
    """
    for origin in learner.origins() if checkpoint is None else ():
        said = take_weights(origin)
        if is_rank_zero():
            print(said, flush=True)


@torch.no_grad()
def take_weights(origin: Origin) -> str:
    """Copies the tensors of a run's checkpoint that have the same names and shapes here; returns what was taken and what not.

    A head of a network may have another size, and then stays as it is.

    Raises:
        InputError: it is no checkpoint, or of another network.
    """
    option, path, prefix = f"--model.{origin.option}", Path(origin.path).expanduser(), origin.prefix
    if not path.is_file():
        is_what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{option} {path} {is_what}; give the file of a checkpoint, such as DIR/checkpoints/best.ckpt")
    checkpoint, own = read_checkpoint(path), origin.part.state_dict()
    theirs = {name.removeprefix(prefix): part for name, part in checkpoint["state_dict"].items() if name.startswith(prefix)}
    other = [name for name, part in own.items() if name not in theirs or theirs[name].shape != part.shape]
    if wrong := [name for name in other if not (prefix and name.startswith("head."))]:
        here, there = (tuple(state[wrong[0]].shape) if wrong[0] in state else "absent" for state in (own, theirs))
        raise InputError(
            f"{option} {path} is of another network: {wrong[0]} is {there} there and {here} here; give --model.backbone and "
            f"--data as that run of {checkpoint['algorithm']} has them"
        )
    for name, part in own.items():
        if name not in other:
            part.copy_(theirs[name])
    kept = f"; as they were: {', '.join(other[:SHOWN])}{', ...' if len(other) > SHOWN else ''}" if other else ""
    unused = [name for name in theirs if name not in own or name in other]
    left = f"; not taken: {', '.join(unused[:SHOWN])}{', ...' if len(unused) > SHOWN else ''}" if unused else ""
    taken = f"{len(own) - len(other)} of {len(own)} tensors of the {'network' if prefix else origin.option} are those of {path}"
    return f"{taken} ({checkpoint['algorithm']}, step {checkpoint['global_step']}){kept}{left}"
