"""The checkpoint of a stream, from which a learner goes on, and its memory."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError

from app.backbones import BackboneCallable
from app.command_line.parser import MetaParser, shortened
from app.continual.base.method import ContinualMethod, MethodCallable
from app.continual.built_method import DEFAULT_BACKBONE
from app.continual.learned_numbers import LearnedNumbers
from app.continual.living_stream import LivingStream
from app.continual.methods.fine_tuning import FineTuning
from app.continual.stream_algorithm import StreamAlgorithm
from app.errors import InputError
from app.learners.kept import Group, Kept, Name
from app.pretrained.restored import weights_of_checkpoint
from app.runs.known_classes import check_classes


def _parts(method: MethodCallable | None = None, backbone: BackboneCallable | None = None) -> None:
    """Options of a ContinualLearner, for a parser."""


def build_stream(checkpoint: dict[str, Any], path: Path, options: dict[str, Any]) -> StreamAlgorithm:
    """The learner of a stream with all that it keeps; arguments as of `checkpoint.build`."""
    if options:
        raise InputError(f"--model.{next(iter(options))}: a learner of a stream goes on as it was trained; leave it out")
    if "stream" not in checkpoint:
        raise InputError(f"{path} does not say what its stream was; give a newer one, after a step of `fit --ckpt_path last`")
    if checkpoint["task"]["task_type"] != "classification":
        raise InputError(
            f"{path} has learned a stream of regression, which only `fit` and `test` take; give one of a stream of classes"
        )
    if (count := checkpoint.get("num_streams", 1)) > 1:
        raise InputError(f"{path} holds {count} learners, one of each stream; train one with --model.num_streams 1")
    config = checkpoint["config"]["model"]
    check_classes(config, str(path))
    given = config.get("init_args") or {}
    chosen = {name: given[name] for name in ("method", "backbone") if given.get(name) is not None}
    parser = MetaParser(exit_on_error=False)
    parser.add_function_arguments(_parts, "model", fail_untyped=False)

    def build(stream: LivingStream) -> ContinualMethod:
        try:
            parts = parser.instantiate_classes(parser.parse_object({"model": chosen})).model
        except ArgumentError as error:
            raise InputError(f"{path}: this version does not take the method's options ({shortened(str(error))})") from error
        method, backbone = parts.method, parts.backbone
        if facts := checkpoint.get("meta_learned"):
            learned = LearnedNumbers(facts, str(path))
            method, backbone = learned.method(method), learned.backbone(backbone)
        with weights_of_checkpoint("state_dict" in checkpoint):
            net = (backbone or DEFAULT_BACKBONE)(stream.input_shape, stream.output_size)
        made = (method or FineTuning)(net, stream)
        if found := checkpoint.get("rate"):
            made.take_rate(found["chosen"])
        return made

    algorithm = StreamAlgorithm(build, checkpoint["stream"])
    if "state_dict" in checkpoint:
        whole = checkpoint["state_dict"].items()
        state = {name.removeprefix("method."): part for name, part in whole if name.startswith("method.")}
        algorithm.method.to(next(part.dtype for part in state.values() if part.is_floating_point()))
        own = algorithm.method.state_dict()
        if differing := [name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name)]:
            raise InputError(f"{path} does not fit this version's method: {min(differing)} differs; use the one that wrote it")
        algorithm.method.load_state_dict(state)
        if optimizers := checkpoint.get("optimizer_states"):
            algorithm.method.optimizer.load_state_dict(optimizers[0])
    return algorithm


def _shape(state: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


class KeptStream(Kept):
    """What a method for streams keeps: its weights and its own memory.

    Args:
        algorithm: the method, which learns.
    """

    kind = "stream"
    words = "its weights and its own memory, and learns on"
    replaces = ("state_dict",)
    can_forget = False

    def __init__(self, algorithm: StreamAlgorithm):
        self.algorithm, facts = algorithm, algorithm.facts
        begun = {number for _, classes, _ in facts["experiences"][: facts["begun"]] for number in classes}
        self.numbers: dict[Name, int] = {facts["names"][number]: number for number in sorted(begun)}
        self._counts: dict[Name, int] = dict.fromkeys(self.numbers, 0)

    @property
    def counts(self) -> dict[Name, int]:
        return dict(self._counts)

    def learn(self, groups: dict[Name, Group]) -> dict[Name, int]:
        numbers, names = dict(self.numbers), self.algorithm.facts["names"]
        for name in groups:
            # Of a class that the stream would have brought later, the output is there already.
            later = names.index(name) if name in names else None
            free = max([len(names) - 1, *numbers.values()]) + 1
            numbers.setdefault(name, free if later is None or later in numbers.values() else later)
        x, kept_dtype = torch.cat([group.x for group in groups.values()]), self.algorithm.method.stream.kept_dtype
        images = (x * 255).round().byte() if kept_dtype == torch.uint8 else x.to(kept_dtype)
        y = torch.tensor([numbers[name] for name, group in groups.items() for _ in group.digests])
        self.algorithm.learn(images, y)
        self.numbers = numbers
        for name, group in groups.items():
            self._counts[name] = self._counts.get(name, 0) + len(group.digests)
        return {}

    def forget(self, name: Name) -> None:
        raise NotImplementedError

    def forget_examples(self, groups: dict[Name, Group]) -> None:
        raise NotImplementedError

    def merge(self, other: Kept) -> dict[Name, int]:
        raise InputError("--merge: a learner of a stream takes in no other weights; learn the other's examples")

    def state(self) -> dict[str, Any]:
        return {"numbers": list(self.numbers.items()), "counts": list(self._counts.items()), **self.algorithm.kept()}

    def load(self, state: dict[str, Any]) -> None:
        self.numbers, self._counts = dict(state["numbers"]), dict(state["counts"])
        self.algorithm.take_up(state)
