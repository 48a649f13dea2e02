"""What another algorithm has meta-learned, deployed on streams of new classes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from app.backbones import BackboneCallable, default_backbone
from app.backbones.rows import Rows
from app.continual.meta_trained.deployed_algorithm import DeployedAlgorithm
from app.continual.meta_trained.deployment import with_constant
from app.episode import Episode
from app.errors import InputError
from app.inner_loop.params import Params
from app.learners.meta_algorithm import Metrics
from app.runs.known_classes import known_class
from app.runs.run import read_checkpoint
from app.scores.losses import widened


class Initialisation(DeployedAlgorithm):
    """The encoder of a checkpoint of MAML, Reptile, Meta-SGD, ProtoNet or another algorithm, deployed on streams of new classes.

    Nothing is learned: the steps of `fit` gather the running statistics of the norms on training images, and its validation
    chooses the learning rates of the heads, as for every deployed algorithm.

    Args:
        checkpoint: of a run of this application; null for an encoder that learned nothing.
    """

    def __init__(self, checkpoint: str | Path | None = None, **kwargs):
        self._source: dict[str, Any] | None = None
        if checkpoint is not None:
            if not Path(checkpoint).is_file():
                raise InputError(f"--model.checkpoint {checkpoint} does not exist; give the file of a run")
            self._source = read_checkpoint(Path(checkpoint))
            if "config" not in self._source:
                raise InputError(
                    f"--model.checkpoint {checkpoint} does not say what it is of; give one that `train.py fit` wrote"
                )
        self._path = checkpoint
        kwargs["optimizer"] = lambda params: torch.optim.SGD(params, lr=0.0)
        super().__init__(**kwargs)

    def build_net(self, backbone: BackboneCallable) -> nn.Module:
        if self._source is None:
            net = super().build_net(backbone)
        else:
            net = super().build_net(self._backbone_of_source())
            state = self._source["state_dict"]
            own = {name: state.get(f"net.{name}") for name in net.state_dict()}
            for name, tensor in net.state_dict().items():
                if own[name] is None or own[name].shape != tensor.shape:
                    there = "absent" if own[name] is None else tuple(own[name].shape)
                    raise InputError(
                        f"--model.checkpoint {self._path}, of {self._source['algorithm']}, has no encoder for inputs of shape "
                        f"{self.input_shape}: {name} is {there}, not {tuple(tensor.shape)}; give one that was trained on such"
                    )
            net.load_state_dict(own)
        return self.with_running_statistics(net)

    def _backbone_of_source(self) -> BackboneCallable:
        chosen = self._source["config"]["model"]["init_args"].get("backbone")
        if not chosen:
            return default_backbone(self.input_shape)
        cls, options = known_class(chosen["class_path"], f"--model.checkpoint {self._path}"), chosen.get("init_args") or {}
        return lambda shape, outputs: cls(shape, outputs, **options)

    def check_data(self, data: Any) -> None:
        super().check_data(data)
        source = (self._source or {}).get("config", {}).get("data", {})
        protocol = (source.get("init_args") or {}).get("split_protocol", "background_evaluation")
        if protocol != "background_evaluation":
            raise InputError(
                f"--model.checkpoint {self._path} was trained on the {protocol} split of Omniglot, which holds classes of the "
                "test streams; train it with --data.split_protocol background_evaluation"
            )

    def encode(self, params: Params, images: Tensor, first_episode: int = 0, together: bool = True) -> Tensor:
        """As it was trained: the rows of a task are normalised together, or by running statistics."""
        if params is self._untrained:  # the running statistics are not its own
            return super().encode(params, images, first_episode)
        with Rows(num_tasks=len(images)):
            features = functional_call(self.net, self.net_params(params), (images.flatten(0, 1),))
        return with_constant(widened(features.flatten(1))).unflatten(0, images.shape[:2])

    @torch.no_grad()
    def outer_gradient(self, params: Params, batch: Episode, first_episode: int = 0) -> tuple[Params, Metrics]:
        self.encode(params, torch.cat([batch.support_x, batch.query_x], 1))
        nothing = {name: torch.zeros_like(parameter) for name, parameter in params.items()}
        return nothing, {"outer_loss": batch.support_x.new_zeros(())}

    def describe_algorithm(self) -> dict[str, Any]:
        algorithm = self._source["algorithm"] if self._source else "nothing"
        return {**super().describe_algorithm(), "learned_by": algorithm}
