"""From a checkpoint to a predictor."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError

import app.algorithms
import app.continual.meta_learned
import app.continual.meta_trained  # noqa: F401
from app.command_line.checked import Checked
from app.command_line.classes import options_of
from app.command_line.parser import MetaParser, shortened
from app.command_line.section import from_mapping
from app.continual.learner import ContinualLearner
from app.deploy.encoded import encoded_pictures
from app.deploy.inputs import Columns, FeatureColumns, Pictures, Polarity
from app.deploy.predictor import Predictor, Source
from app.deploy.streams import build_stream
from app.errors import InputError, cause
from app.learners.inductive import answer_one_by_one
from app.learners.meta_algorithm import MetaAlgorithm
from app.pretrained.restored import weights_of_checkpoint
from app.runs.known_classes import check_classes, known_class
from app.runs.run import CHECKPOINT_FORMAT, read_checkpoint


def restored(
    ckpt_path: str,
    device: str | None = None,
    options: dict[str, Any] | None = None,
    polarity: Polarity = "auto",
    encoder_weights: str | None = None,
) -> Predictor:
    """The predictor of a checkpoint; arguments as of `app.load`."""
    path = Path(ckpt_path).expanduser()
    if not path.is_file():
        is_what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"--ckpt_path {ckpt_path} {is_what}; give the file of a checkpoint, such as DIR/checkpoints/best.ckpt")
    checkpoint = read_checkpoint(path)
    check_format(checkpoint, path)
    return predictor_of(checkpoint, path, device, options or {}, polarity, encoder_weights)


def predictor_of(
    checkpoint: dict[str, Any],
    path: Path,
    device: str | None,
    options: dict[str, Any],
    polarity: Polarity = "auto",
    encoder_weights: str | None = None,
) -> Predictor:
    """The predictor of a checkpoint that was read; `path` is for messages, all else as of `app.load`."""
    task, inputs = checkpoint["task"], checkpoint["inputs"]
    if checkpoint["algorithm"] == ContinualLearner.__name__:
        algorithm = build_stream(checkpoint, path, options)
        inputs = {"inverts_pictures": False, "picture_shape": checkpoint["stream"]["picture_shape"]} | inputs
    else:
        algorithm = build(checkpoint, path, options)
        if "transductive" not in options:
            answer_one_by_one(algorithm)
        algorithm.on_load_checkpoint(checkpoint)
    if "encoder" in inputs:
        reading = encoded_pictures(**inputs, polarity=polarity, path=path, weights=encoder_weights, device=_device(device))
    elif encoder_weights is not None:
        raise InputError(f"{path} was trained without an encoder; leave --encoder_weights out")
    elif "columns" in inputs:
        reading = FeatureColumns.described(**inputs)
    elif task["task_type"] == "classification" and len(task["input_shape"]) == 3:
        reading = Pictures(tuple(task["input_shape"]), inputs.get("inverts_pictures", False), polarity)
    else:
        reading = Columns.numbered(task["input_shape"], task["output_size"], **inputs)
    source = Source(checkpoint, options, polarity, encoder_weights)
    return Predictor(algorithm.to(_device(device)).eval(), reading, str(path), source)


def check_format(checkpoint: dict[str, Any], path: Path) -> None:
    """Raises an InputError where this version cannot know what the checkpoint is of."""
    found = checkpoint.get("format")
    if found != CHECKPOINT_FORMAT:
        is_of = "an earlier version of this application" if found is None else f"format {found} of another version"
        raise InputError(
            f"{path} is of {is_of}, and this one reads format {CHECKPOINT_FORMAT}; give a newer checkpoint, of the same run "
            "after a further step of `fit --ckpt_path last`, or use the version that wrote it"
        )


def build(checkpoint: dict[str, Any], path: Path, options: dict[str, Any]) -> MetaAlgorithm:
    """The algorithm of a checkpoint with its weights.

    Args:
        checkpoint: as it was read.
        path: of its file, for messages.
        options: of the algorithm, instead of those in the checkpoint.
    """
    config, task = checkpoint["config"]["model"], checkpoint["task"]
    name = checkpoint["algorithm"]
    cls = known_class(config["class_path"], str(path))
    check_classes(config, str(path))
    if not issubclass(cls, MetaAlgorithm):
        raise InputError(
            f"{path} is of {name}, which learns from a stream and adapts to no support set; give one of MAML or its kin"
        )
    known = options_of(cls)
    checked = Checked({}, f"all options: train.py fit --model.help {name}")
    for option in options:
        if option not in known or option in task:
            if option.startswith("backbone."):
                raise InputError(f"--model.{option}: the network is that of the checkpoint; leave it out")
            near = get_close_matches(option, known.keys() - task.keys(), n=3, cutoff=0.5)
            raise InputError(f"--model.{option} is no option of {name}; the nearest are {', '.join(near) or 'none'}")
    given = {option: checked.value(f"model.{option}", from_mapping(value), known[option]) for option, value in options.items()}
    arguments = (config.get("init_args") or {}) | {key: value for key, value in task.items() if key in known} | given
    parser = MetaParser(exit_on_error=False)
    parser.add_subclass_arguments(MetaAlgorithm, "model", fail_untyped=False, required=True)
    try:
        parsed = parser.parse_object({"model": {"class_path": config["class_path"], "init_args": arguments}})
        with weights_of_checkpoint():
            algorithm = parser.instantiate_classes(parsed).model
    except ArgumentError as error:
        raise InputError(f"{path}: this version's {name} does not take its options ({shortened(str(error))})") from error
    except ValueError as error:
        raise (cause(error, InputError) or error) from None
    state = checkpoint["state_dict"]
    algorithm.to(next(tensor.dtype for tensor in state.values() if tensor.is_floating_point()))
    own = algorithm.state_dict()
    if differing := [key for key in own.keys() | state.keys() if _shape(own, key) != _shape(state, key)]:
        first = min(differing)
        raise InputError(
            f"{path} does not fit this version's {name}: {first} is {_shape(state, first)} there and {_shape(own, first)} here; "
            "leave out options of the network, or use the version that wrote it"
        )
    algorithm.load_state_dict(state)
    return algorithm.requires_grad_(False)


def _shape(state: dict[str, torch.Tensor], key: str) -> tuple[int, ...] | str:
    return tuple(state[key].shape) if key in state else "absent"


def _device(device: str | None) -> torch.device:
    try:
        # Tables are scaled in float64, which not every device has.
        return torch.empty(0, dtype=torch.float64, device=device or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"--device {device} cannot be used ({str(error).splitlines()[0]}); give cpu, or leave it out") from error
