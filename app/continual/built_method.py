"""The methods of streams, each on a network of its own."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch

from app.backbones import BackboneCallable, Identity
from app.backbones.drop_block import DropBlock
from app.backbones.mlp import MLP
from app.continual.base.method import ContinualMethod, MethodCallable, goes_abreast
from app.continual.methods.fine_tuning import FineTuning
from app.errors import InputError
from app.learners.learner import concrete_subclasses
from datamodules.base.stream import StreamDataModule

DEFAULT_BACKBONE = partial(MLP, hidden_sizes=(100, 100), init="xavier")


def build_methods(
    streams: Sequence[StreamDataModule], method: MethodCallable | None, backbone: BackboneCallable | None
) -> list[ContinualMethod]:
    """A method for each stream; arguments as of ContinualLearner."""
    first = _of_stream(streams[0], method, backbone)
    _check_abreast(first, len(streams))
    return [first, *(_of_stream(stream, method, backbone) for stream in streams[1:])]


def _of_stream(stream: StreamDataModule, method: MethodCallable | None, backbone: BackboneCallable | None) -> ContinualMethod:
    """The method for a stream; the weights of all but the first one are drawn with the stream's seed."""
    with torch.random.fork_rng(devices=[]) if stream.replica else nullcontext():
        if stream.replica:
            torch.default_generator.manual_seed(stream.seed + stream.replica)
        return build_method(stream, method, backbone)


def build_method(stream: StreamDataModule, method: MethodCallable | None, backbone: BackboneCallable | None) -> ContinualMethod:
    """The method on a network of its own."""
    net = (backbone or (Identity if stream.encoder else DEFAULT_BACKBONE))(stream.input_shape, stream.output_size)
    if any(isinstance(module, DropBlock) for module in net.modules()):
        raise InputError("--model.backbone.drop_rate is above 0, and a continual learner drops no features; give 0")
    return (method or FineTuning)(net, stream)


def _check_abreast(method: ContinualMethod, num_streams: int) -> None:
    """Raises an InputError where the method cannot go through several streams at once."""
    if num_streams > 1 and not goes_abreast(type(method)):
        able = sorted(cls.__name__ for cls in concrete_subclasses(ContinualMethod) if goes_abreast(cls))
        raise InputError(
            f"--model.num_streams is {num_streams}, and {type(method).__name__} goes through one stream at a time; give "
            f"--model.num_streams 1, or one of {', '.join(able)}"
        )
