"""What MetaContinual has learned of a method, put to work on a stream."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from app.backbones import BackboneCallable
from app.continual.base.method import ContinualMethod, MethodCallable
from app.continual.methods.er import ER
from app.errors import InputError
from app.runs.known_classes import known_class
from app.runs.run import read_checkpoint
from datamodules.base.stream import StreamDataModule


class SizedDescent(Optimizer):
    """Plain gradient descent with a step size for every weight, or for all weights of a tensor.

    Args:
        params: the weights.
        sizes: of each tensor, of a shape that its weights can be multiplied by.
    """

    def __init__(self, params: Iterable[Tensor], sizes: Sequence[Tensor]):
        groups = [{"params": [own], "sizes": size} for own, size in zip(params, sizes, strict=True)]
        super().__init__(groups, {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for own in group["params"]:
                own -= group["lr"] * group["sizes"].to(own) * own.grad


class LearnedNumbers:
    """Numbers, step sizes and initial weights of a method, as a checkpoint has them.

    Args:
        facts: what a checkpoint says under `meta_learned`; what the method and its network were is beside it.
        source: the option or file that gives them, for messages.
    """

    def __init__(self, facts: dict[str, Any], source: str):
        self.facts, self.source = facts, source

    @classmethod
    def read(cls, path: Path) -> "LearnedNumbers":
        """Those of a file.

        Raises:
            InputError: it is no checkpoint of MetaContinual.
        """
        option = f"--model.meta_learned {path}"
        if not path.is_file():
            raise InputError(
                f"{option} does not exist; give the file of a run of MetaContinual, such as DIR/checkpoints/best.ckpt"
            )
        checkpoint = read_checkpoint(path)
        if "meta_learned" not in checkpoint or "config" not in checkpoint:
            raise InputError(
                f"{option} is of {checkpoint['algorithm']}; give one that `train.py fit --model MetaContinual` wrote"
            )
        given = checkpoint["config"]["model"].get("init_args") or {}
        return cls({**checkpoint["meta_learned"], "parts": {name: given.get(name) for name in ("method", "backbone")}}, option)

    @property
    def words(self) -> str:
        """What is taken from it."""
        numbers = {name: value for name, value in self.facts["numbers"].items() if name != "lr" or not self.facts["step_sizes"]}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        sizes = f", {len(self.facts['step_sizes'])} tensors of step sizes" * bool(self.facts["step_sizes"])
        weights = f", {len(self.facts['weights'])} tensors of initial weights" * bool(self.facts["weights"])
        return f"{self.facts['method']} as meta-learned: {numbers}{sizes}{weights}"

    def backbone(self, given: BackboneCallable | None) -> BackboneCallable | None:
        """The network that was given, else that of the checkpoint."""
        return given or self._part("backbone")

    def method(self, given: MethodCallable | None) -> MethodCallable:
        """The method that was given, else that of the checkpoint, with what was learned; its optimiser is gradient descent."""
        made = given or self._part("method") or ER

        def build(net: nn.Module, stream: StreamDataModule) -> ContinualMethod:
            self._begin(net)
            method = made(net, stream)
            if type(method).__name__ != self.facts["method"]:
                raise InputError(
                    f"--model.method is {type(method).__name__}, and {self.source} has learned the numbers of "
                    f"{self.facts['method']}; give that one, or leave it out"
                )
            for name, value in self.facts["numbers"].items():
                if name != "lr":
                    setattr(method, name, value)
            with torch.no_grad():
                for name, start in method.starting_state().items():
                    method.get_parameter(name).copy_(start)
            method._optimizer = self._optimizer([name for name, _ in net.named_parameters()])
            return method

        return build

    def check(self, stream: StreamDataModule) -> None:
        """Raises an InputError where classes of the stream were learned from, or its steps are none that the numbers are for."""
        if stream.task_type != "classification":
            raise InputError(
                f"{self.source} has learned its numbers on streams of classes, and --data {type(stream).__name__} is regression; "
                "leave it out, and give --model.method"
            )
        for option in ("scenario", "batch_size"):  # of a checkpoint that says so
            own, learned = getattr(stream, option), self.facts.get("shape", {}).get(option)
            if learned not in (None, own):
                kind = type(stream).__name__
                raise InputError(
                    f"{self.source} has learned its numbers with {option} {learned}, and --data {kind} has {own}; "
                    f"give --data.{option} {learned}, or --model.{option} {own} when they are meta-learned"
                )
        if shared := sorted(stream.identities & set(self.facts["classes"])):
            raise InputError(
                f"{self.source} was trained on {len(shared)} classes of the stream, such as {shared[0]}; give --data.split test, "
                "or other classes"
            )

    def _part(self, name: str) -> Any:
        chosen = self.facts["parts"].get(name)
        if not chosen:
            return None
        options = {option: value for option, value in (chosen.get("init_args") or {}).items() if option != "optimizer"}
        return partial(known_class(chosen["class_path"], self.source), **options)

    @torch.no_grad()
    def _begin(self, net: nn.Module) -> None:
        own, sizes = dict(net.named_parameters()), self.facts["step_sizes"]
        for name, learned in self.facts["weights"].items():
            if name not in own or own[name].shape != learned.shape:
                raise InputError(
                    f"{self.source} has initial weights of another network: {name} differs; give its --model.backbone"
                )
            own[name].copy_(learned)
        if sizes and (
            wrong := next((n for n in own if n not in sizes or (sizes[n].ndim and sizes[n].shape != own[n].shape)), None)
        ):
            raise InputError(f"{self.source} has step sizes of another network: {wrong} differs; give its --model.backbone")

    def _optimizer(self, names: list[str]) -> Any:
        sizes = self.facts["step_sizes"]
        if not sizes:
            return partial(SGD, lr=self.facts["numbers"]["lr"])
        return partial(SizedDescent, sizes=[sizes[name] for name in names])
