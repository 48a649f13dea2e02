"""A learner that goes through a stream once and keeps what it knew."""

import time
from functools import partial
from hashlib import sha256
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from app.backbones import BackboneCallable, Identity
from app.backbones.drop_block import DropBlock
from app.backbones.mlp import MLP
from app.backbones.rows import Rows
from app.continual.base.method import MethodCallable, class_masks
from app.continual.methods.fine_tuning import FineTuning
from app.continual.stream_record import StreamRecord
from app.errors import InputError, check_at_least
from app.learners.learner import Learner
from app.lightning_internals import attached_trainer
from datamodules.base.resumable import ResumableDataModule
from datamodules.base.stream import StreamBatch, StreamDataModule, as_inputs

ROWS = 5000  # images that are classified together in an evaluation
DEFAULT_BACKBONE = partial(MLP, hidden_sizes=(100, 100), init="xavier")


class ContinualLearner(Learner):
    """Runs a continual method over a whole stream in one fit, and scores it after each experience on all of them.

    R[i, j], the accuracy on experience j after training on 0..i, is a buffer, as is all that the method keeps: a run that was
    stopped in the middle of an experience goes on to the same numbers. A class-incremental run is scored task-incrementally as
    well, with only the classes of the experience competing.

    Args:
        stream: what it learns from; linked to the data.
        method: what it does about forgetting; null for FineTuning.
        backbone: the network; null for Identity on features, else an MLP of 100 and 100 units (Lopez-Paz and Ranzato 2017).
            Its norms normalise each image by itself.
        evaluate_every: experiences between two rows of R; the last one is always scored, and alone where the method learns
            nothing before it.
        anytime_every: steps between two further evaluations on a part of the test images, for the anytime metrics; null for
            the ends of the experiences alone.
        anytime_images: test images of each experience at these, the first ones.
    """

    learns_from = StreamDataModule
    task_types = ("classification",)
    automatic_optimization = False
    optimizer_option = "--model.method.optimizer"
    remedy_for_nan = "lower the learning rate of --model.method (optimizer.lr, lr, alpha or strength)"

    def __init__(
        self,
        stream: StreamDataModule,
        method: MethodCallable | None = None,
        backbone: BackboneCallable | None = None,
        evaluate_every: int = 1,
        anytime_every: int | None = None,
        anytime_images: int = 200,
    ):
        super().__init__()
        check_at_least(1, "model", evaluate_every=evaluate_every, anytime_every=anytime_every, anytime_images=anytime_images)
        stream.prepare_data()
        stream.setup()
        self.task_type, self.input_shape, self.output_size = stream.task_type, stream.input_shape, stream.output_size
        net = (backbone or (Identity if stream.encoder else DEFAULT_BACKBONE))(self.input_shape, self.output_size)
        if any(isinstance(module, DropBlock) for module in net.modules()):
            raise InputError("--model.backbone.drop_rate is above 0, and a continual learner drops no features; give 0")
        self.method = (method or FineTuning)(net, stream)
        self.evaluate_every, self.anytime_every, self.anytime_images = evaluate_every, anytime_every, anytime_images
        views = {"class": ("class", "task"), "task": ("task",), "domain": ("domain",)}[stream.scenario]
        if all(len(experience.classes) == 1 for experience in stream.experiences):
            views = ("class",)  # with its experience given, nothing is left to tell
        self.views = views if stream.has_tests else ()
        self.record = StreamRecord(self.views, len(stream.experiences), stream.num_steps, evaluate_every, anytime_every)
        self.num_streams = 1
        self._own_state: dict[str, Tensor] | None = None
        self.evaluated: int | None = None

    @property
    def is_replicated(self) -> bool:
        """Whether every process has a stream of its own, because the method cannot share a batch."""
        return self.method.sequential and self.trainer.world_size > 1

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/accuracy", "max"

    def logged_scores(self, data: ResumableDataModule) -> list[str]:
        return ["train/loss", "train/prequential_accuracy"]

    def check_data(self, data: ResumableDataModule) -> None:
        self.method.check_stream(data)

    def new_optimizer(self) -> torch.optim.Optimizer:
        return self.method.make_optimizer()

    # Training

    def setup(self, stage: str) -> None:
        # What is tested are the weights of the first process, the only ones that a checkpoint's state holds.
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

    @Rows(one_by_one=True)  # an image's features depend on no other image
    def training_step(self, batch: StreamBatch, batch_idx: int) -> Tensor:
        batch = batch._replace(x=batch.x.to(next(self.parameters()).dtype))
        stream, cursor = self.trainer.datamodule, self.trainer.datamodule.cursor
        place, self.evaluated = stream.place(cursor), None
        if cursor == 0 and self.views:
            self._evaluate(stream, -1)
        started = time.monotonic()
        if place.first and stream.has_boundaries:
            self.method.begin_experience(place.experience, stream.experiences[place.experience])
        self.record.num_correct[place.experience] += (self._answers(batch.x, batch.task) == batch.y).sum()
        self.record.num_samples[place.experience] += len(batch.y)
        loss = self.method.total(self.method.observe(batch, self._generator(stream, cursor)).detach().clone())
        if place.last and stream.has_boundaries:
            samples = stream.samples(place.experience, "train", self.device)
            self.method.end_experience(place.experience, stream.experiences[place.experience], samples)
        self.record.seconds += time.monotonic() - started
        if place.last and self._is_due(stream, place.experience):
            self._evaluate(stream, place.experience)
        partly = self.views and self.anytime_every and not self.method.learns_at_end
        if partly and ((cursor + 1) % self.anytime_every == 0 or cursor + 1 == stream.num_steps):
            self._evaluate_part(stream, cursor // self.anytime_every, place.experience)
        self.log("train/loss", loss, batch_size=len(batch.y))
        prequential = self.record.num_correct.sum() / self.record.num_samples.sum()
        self.log("train/prequential_accuracy", prequential, batch_size=len(batch.y))
        # Lightning counts calls of the optimiser; here a step is a batch of the stream, whatever the method does with it.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()
        self.trainer.should_stop |= cursor + 1 == stream.num_steps
        return loss

    def _generator(self, stream: StreamDataModule, cursor: int) -> torch.Generator:
        digest = sha256(f"{stream.seed + stream.replica}:method:{cursor}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))

    # Scores

    def _is_due(self, stream: StreamDataModule, number: int) -> bool:
        due = (number + 1) % self.evaluate_every == 0 and not self.method.learns_at_end
        return due or number + 1 == len(stream.experiences)

    def _answers(self, x: Tensor, task: Tensor) -> Tensor:
        logits = self.method.predict(x, task if self.method.masked else None)
        return (logits.masked_fill(~self.method.masks[task], -torch.inf) if self.method.masked else logits).argmax(1)

    def _evaluate(self, stream: StreamDataModule, number: int) -> None:
        """Fills the row of R after that experience, -1 for before any training."""
        for view, accuracy in self.accuracies(stream).items():
            self.record.accuracy(view)[number + 1] = accuracy
        self.evaluated = number

    def _evaluate_part(self, stream: StreamDataModule, instant: int, number: int) -> None:
        accuracy = self.accuracies(stream, self.anytime_images)[self.views[0]]
        self.record.anytime[instant, : number + 1] = accuracy[: number + 1]
        self.record.anytime_experience[instant] = number

    def accuracies(self, stream: StreamDataModule, num_images: int | None = None) -> dict[str, Tensor]:
        """Accuracy on the test images of each experience, in each view, of shape (experiences,)."""
        parts = [stream.samples(number, "test", self.device) for number in range(len(stream.experiences))]
        images, y = (torch.cat([part[at][:num_images] for part in parts]) for at in (0, 1))
        counts = torch.tensor([len(part.y[:num_images]) for part in parts], device=self.device)
        task = torch.arange(len(parts), device=self.device).repeat_interleave(counts)
        training, asked = self.method.training, self.method.predict_seconds
        self.method.eval()
        chunks = zip(images.split(ROWS), task.split(ROWS) if self.method.masked else repeat(None), strict=False)
        with Rows(one_by_one=True):
            logits = torch.cat([self.method.predict(as_inputs(rows), of_rows) for rows, of_rows in chunks])
        self.method.train(training)
        self.record.seconds += self.method.predict_seconds - asked
        found = {}
        for view in self.views:
            competing = logits.masked_fill(~self.method.masks[task], -torch.inf) if view == "task" else logits
            correct = (competing.argmax(1) == y).to(torch.float64)
            found[view] = torch.zeros(len(parts), dtype=torch.float64, device=self.device).index_add_(0, task, correct) / counts
        return found

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Scores the finished learner once more on all experiences, as a check of the last row of R."""
        seconds, gradients = self.record.seconds, self.method.num_gradients.clone()
        for view, accuracy in self.accuracies(self.trainer.datamodule).items():
            self.log(f"test/accuracy_{view}", accuracy.mean().float(), batch_size=1)
        self.record.seconds = seconds  # the check is no part of what learning cost
        self.method.num_gradients.copy_(gradients)

    @property
    def evaluation(self) -> dict[str, Any]:
        """All numbers of the stream so far."""
        return self.record.summary(self.method)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["seconds"] = self.record.seconds
        if self.is_replicated:
            own = {"state": {name: tensor.cpu() for name, tensor in self.state_dict().items()}}
            own["optimizer"] = self.method.optimizer.state_dict() if self.method.optimizer else None
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
            checkpoint["replicas"] = gathered

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.record.seconds = checkpoint["seconds"]
        replicas = checkpoint.get("replicas")
        self.num_streams = len(replicas) if replicas else 1
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
