"""A continual method as a learner that lives: it answers, and what arrives is its next experience."""

from collections.abc import Callable
from copy import deepcopy
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from app.backbones.rows import Rows
from app.continual.base.memory import ReservoirMemory
from app.continual.base.method import ContinualMethod
from app.continual.growth import grown, grown_optimizer
from app.continual.living_stream import LivingStream
from app.errors import InputError
from app.inner_loop.params import Params
from app.scores.losses import widened
from datamodules.base.experience import Samples, StreamBatch
from datamodules.base.inputs import as_inputs

Build = Callable[[LivingStream], ContinualMethod]


class StreamAlgorithm(nn.Module):
    """What `app.deploy` asks of an algorithm, of a method that went through a stream.

    Args:
        build: makes the method for a stream, with fresh weights.
        facts: of the stream that it was trained on, as `describe_stream` gives them.
    """

    task_type = "classification"
    transductive = False
    any_ways = learns_streams = True
    temperature = nonconformity = validated_on = None

    def __init__(self, build: Build, facts: dict[str, Any]):
        super().__init__()
        self._build, self.facts = build, facts
        self.more: list[tuple[list[int], int]] = []
        self.steps = facts["cursor"]
        self.method = self._fresh()

    def _fresh(self) -> ContinualMethod:
        """The method at its present size, its weights drawn by the seed and the number of experiences."""
        stream = LivingStream(self.facts, self.more)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(stream.generator("head", len(stream.experiences)).integers(2**62)))
            method = self._build(stream)
        method.check_stream(stream)
        method.optimizer = method.make_optimizer()
        return method

    # What it is asked

    @property
    def device(self) -> torch.device:
        return next(self.method.net.parameters()).device

    @property
    def net(self) -> nn.Module:
        """The network."""
        return self.method.net

    @property
    def output_size(self) -> int:
        """Outputs of the network."""
        return self.method.masks.shape[1]

    @output_size.setter
    def output_size(self, _: int) -> None:
        """A task at hand has some of the outputs: `predict` says which."""

    def check_inputs(self, inputs: Tensor) -> None:
        """Takes all."""

    def predict(self, params: Params, adapted: Tensor, query_x: Tensor) -> Tensor:
        """Logits of some outputs.

        Args:
            params: are the method's own.
            adapted: numbers of the outputs.
            query_x: pixels from 0 to 1.
        """
        self.method.eval()
        with Rows(one_by_one=True):
            return self.method.predict(query_x)[:, adapted]

    def probabilities(self, outputs: Tensor) -> Tensor:
        return widened(outputs).softmax(-1)

    # Learning

    @Rows(one_by_one=True)
    def learn(self, images: Tensor, y: Tensor) -> None:
        """Goes through the next experience.

        Args:
            images: as a memory keeps them: pixels 0..255, uint8, of shape (samples, channels, height, width), or features.
            y: numbers of their outputs; new ones follow those that there are.
        """
        before = self.method
        self.more.append((sorted(set(y.tolist())), len(y)))
        try:
            method = self._fresh().to(self.device)
            method.load_state_dict(grown(before, method))
            method.optimizer.load_state_dict(grown_optimizer(before, method))
            self._answer_for_new_outputs(before, method)
            self._observe(method.train(), images.to(self.device), y.to(self.device))
        except BaseException:
            self.more.pop()
            raise
        self.method = method

    def _answer_for_new_outputs(self, before: ContinualMethod, method: ContinualMethod) -> None:
        """Stored logits have what the network says of the new outputs, as if these had been there."""
        old = before.masks.shape[1]
        for memory in (module for module in method.modules() if isinstance(module, ReservoirMemory)):
            if memory.logits is not None and (held := len(memory)):
                with torch.no_grad():
                    memory.logits[:held, old:] = method.net(as_inputs(memory.images[:held]))[:, old:].to(memory.logits)

    def _observe(self, method: ContinualMethod, images: Tensor, y: Tensor) -> None:
        stream, steps = method.stream, self.steps
        number = len(stream.experiences) - 1
        experience = stream.experiences[number]
        dtype = next(method.net.parameters()).dtype
        with torch.inference_mode(False), torch.enable_grad():
            method.requires_grad_(True)
            if stream.has_boundaries:
                method.begin_experience(number, experience)
            for passed in range(stream.passes):
                order = torch.from_numpy(stream.generator("order", number, passed).permutation(len(y))).to(y.device)
                for rows in order.split(stream.batch_size):
                    x = as_inputs(images[rows]).to(dtype)
                    batch = StreamBatch(images[rows], x, y[rows], torch.full_like(rows, number))
                    digest = sha256(f"{stream.seed}:method:{steps}".encode()).digest()
                    loss = method.observe(batch, torch.Generator().manual_seed(int.from_bytes(digest[:6], "big")))
                    if not loss.isfinite():
                        raise InputError(
                            "the loss is not finite any more, and nothing was learned; begin anew with a smaller step size"
                        )
                    steps += 1
            if stream.has_boundaries:
                method.end_experience(number, experience, Samples(images, y))
        self.steps = steps

    # What is kept

    def kept(self) -> dict[str, Any]:
        """All that it is, as tensors and plain values."""
        state, optimizer = self.method.state_dict(), self.method.optimizer.state_dict()
        return {"more": [list(part) for part in self.more], "steps": self.steps, "method": state, "optimizer": optimizer}

    def take_up(self, kept: dict[str, Any]) -> None:
        """Becomes what gave `kept`."""
        device = self.device
        self.more, self.steps = [(list(classes), count) for classes, count in kept["more"]], kept["steps"]
        self.method = self._fresh()
        self.method.load_state_dict(kept["method"])
        self.method.to(device)
        self.method.optimizer.load_state_dict(kept["optimizer"])

    def twin(self) -> "StreamAlgorithm":
        """Another one that is the same and goes on by itself."""
        other = StreamAlgorithm(self._build, self.facts).to(self.device)
        other.take_up(deepcopy(self.kept()))
        return other
