"""Where the streams of a learner are: all in one process, or one in each of several."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from app.continual.base.method import ContinualMethod, class_masks
from app.continual.method_stack import MethodStack
from app.continual.stream_record import StreamRecord
from app.errors import InputError
from app.learners.learner import Learner
from app.lightning_internals import attached_trainer


class ReplicatedLearner(Learner):
    """Base of the learner of streams: on several processes a method that cannot share a batch has a stream of its own on each.

    Attributes:
        stack: what learns.
        method: all of it.
        num_replicas: processes with a stream of their own that the loaded checkpoint was written by.
    """

    stack: MethodStack
    method: ContinualMethod
    num_replicas = 1
    _own_state: dict[str, Tensor] | None = None

    @property
    @abstractmethod
    def records(self) -> list[StreamRecord]:
        """What came of each stream so far."""

    @property
    def is_replicated(self) -> bool:
        """Whether every process has a stream of its own, because the method cannot share a batch."""
        return self.method.sequential and self.trainer.world_size > 1

    def setup(self, stage: str) -> None:
        # What is tested are the weights of the first process, the only ones that a checkpoint's state holds.
        num_streams, world_size = len(self.stack), self.trainer.world_size
        if num_streams > 1 and world_size > 1:
            raise InputError(
                f"--model.num_streams is {num_streams}, which are learned in one process, and there are {world_size}; "
                "give --trainer.devices 1"
            )
        stream, replica = self.trainer.datamodule, self.trainer.global_rank if self.is_replicated and stage == "fit" else 0
        if stream.replica != replica:
            stream.become_replica(replica)
            self.method.masks.copy_(class_masks(stream))

    def on_fit_start(self) -> None:
        method, trainer = self.method, self.trainer
        if not method.sequential:
            method.rank, method.world_size = trainer.global_rank, trainer.world_size
        method.optimizer = self.optimizers(use_pl_optimizer=False)
        if self.is_replicated:
            self._become_replica()
        if trainer.world_size > 1 and trainer.is_global_zero:
            how = "each process has a stream of its own" if method.sequential else "every batch is shared by the processes"
            print(f"{type(method).__name__} on {trainer.world_size} processes: {how}")

    def _become_replica(self) -> None:
        """Takes up this process's own state, which DDP has just overwritten with the first one's, and keeps it from doing so."""
        trainer = self.trainer
        num_steps = self.all_gather(torch.tensor(trainer.datamodule.num_steps, device=self.device)).flatten().tolist()
        if len(set(num_steps)) > 1:
            raise InputError(
                f"{type(self.method).__name__} has a stream of its own on each process, and these have {num_steps} steps; use "
                "one process, or experiences of equal size"
            )
        trainer.model.forward_sync_buffers = trainer.model.require_forward_param_sync = False
        if self._own_state is not None:
            self.load_state_dict(self._own_state)
        self.method.masks.copy_(class_masks(trainer.datamodule))

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["seconds"], checkpoint["num_streams"] = self.records[0].seconds, len(self.stack)
        if self.is_replicated:
            own = {"state": {name: tensor.cpu() for name, tensor in self.state_dict().items()}}
            own["optimizer"] = self.method.optimizer.state_dict() if self.method.optimizer else None
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
            checkpoint["replicas"] = gathered

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for record in self.records:
            record.seconds = checkpoint["seconds"]
        replicas = checkpoint.get("replicas")
        self.num_replicas = len(replicas) if replicas else 1
        trainer = attached_trainer(self)
        if replicas and trainer is not None and trainer.training:
            if len(replicas) != self.trainer.world_size:
                raise InputError(
                    f"the checkpoint holds {len(replicas)} streams, one of each process, and there are {self.trainer.world_size} "
                    f"processes; resume with --trainer.devices {len(replicas)}"
                )
            own = replicas[self.trainer.global_rank]
            self._own_state = checkpoint["state_dict"] = own["state"]
            checkpoint["optimizer_states"] = [own["optimizer"]]
