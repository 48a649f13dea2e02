"""A learner that goes through a stream once and keeps what it knew."""

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.backbones import BackboneCallable
from app.backbones.rows import Rows
from app.continual.base.method import MethodCallable
from app.continual.built_method import build_method, build_methods
from app.continual.learned_numbers import LearnedNumbers
from app.continual.method_stack import MethodStack
from app.continual.metrics import OF_TASKS
from app.continual.optimizer_part import check_elementwise
from app.continual.rate_search import check_rates, find_rate, in_words
from app.continual.replicated_learner import ReplicatedLearner
from app.continual.stream_record import StreamRecord
from app.continual.stream_scores import mean_scores
from app.continual.stream_step import take_step
from app.errors import check_at_least
from datamodules.base.resumable import ResumableDataModule
from datamodules.base.stream import StreamDataModule


class ContinualLearner(ReplicatedLearner):
    """Runs a continual method over a whole stream in one fit, and scores it after each experience on all of them.

    R[i, j], the accuracy or squared error on experience j after training on 0..i, is a buffer, as is all that the method keeps: a
    run that was stopped in the middle of an experience goes on to the same numbers. A class-incremental run is scored
    task-incrementally as well, with only the classes of the experience competing.

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
        num_streams: streams that are learned at once, each with a method and weights of its own, drawn with the seeds
            `seed_everything`, `seed_everything` + 1, ...; the numbers of each are those of the stream learned alone.
        rates: step sizes of the method that are tried before the stream begins, each on three quarters of its training samples;
            the one that is best on the others is taken, and no test sample is looked at. null for the method's own.
        meta_learned: checkpoint of MetaContinual: the method has its numbers, step sizes and initial weights; method and network
            are those of the checkpoint unless they are given. null for none.
    """

    learns_from = StreamDataModule
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
        num_streams: int = 1,
        rates: tuple[float, ...] | None = None,
        meta_learned: Path | None = None,
    ):
        super().__init__()
        check_at_least(1, "model", evaluate_every=evaluate_every, anytime_every=anytime_every, anytime_images=anytime_images)
        check_at_least(1, "model", num_streams=num_streams)
        if rates is not None:
            check_rates(rates, stream, meta_learned)
        stream.prepare_data()
        stream.setup()
        self.task_type, self.input_shape, self.output_size = stream.task_type, stream.input_shape, stream.output_size
        streams = stream.beside(num_streams)
        self.learned = LearnedNumbers.read(meta_learned) if meta_learned else None
        if self.learned:
            method, backbone = self.learned.method(method), self.learned.backbone(backbone)
        self.stack = MethodStack(build_methods(streams, method, backbone), streams)
        self.rates, self._build = rates, partial(build_method, method=method, backbone=backbone)
        self.found_rate: dict[str, Any] | None = None
        self.method = self.stack.method
        self.anytime_every, self.anytime_images = anytime_every, anytime_images
        views = {"class": ("class", "task"), "task": ("task",), "domain": ("domain",)}[stream.scenario]
        if stream.scenario == "class" and all(len(experience.classes) == 1 for experience in stream.experiences):
            views = ("class",)  # with its experience given, nothing is left to tell
        self.views = views if stream.has_tests else ()
        self.measure = OF_TASKS[stream.task_type]
        made_of = self.measure, self.views, len(stream.experiences), evaluate_every, anytime_every
        records = [StreamRecord(*made_of, own.own_num_steps) for own in streams]
        self.record = records[0] if num_streams == 1 else nn.ModuleList(records)
        self.evaluated: int | None = None

    @property
    def records(self) -> list[StreamRecord]:
        """What came of each stream so far."""
        return [self.record] if isinstance(self.record, StreamRecord) else list(self.record)

    @property
    def monitor(self) -> tuple[str, str]:
        return f"val/{self.measure.score}", "max" if self.measure.sign > 0 else "min"

    def logged_scores(self, data: ResumableDataModule) -> list[str]:
        return ["train/loss", f"train/prequential_{self.measure.score}"]

    def check_data(self, data: ResumableDataModule) -> None:
        self.method.check_stream(data)
        if self.learned:
            self.learned.check(data)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.rates and not self.found_rate:
            self._find_rate()
        if self.learned and self.trainer.is_global_zero:
            print(self.learned.words, flush=True)

    def _find_rate(self) -> None:
        """Tries the rates on every process alike, and takes the one that the first process found."""
        found = find_rate(self._build, self.trainer.datamodule, self.rates, self.views[0], next(self.parameters()))
        self.found_rate = self.trainer.strategy.broadcast(found)
        self.method.take_rate(self.found_rate["chosen"])
        if self.trainer.is_global_zero:
            print(in_words(self.found_rate), flush=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.learned:
            checkpoint["meta_learned"] = self.learned.facts
        if self.found_rate:
            checkpoint["rate"] = self.found_rate

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.found_rate = checkpoint.get("rate")
        if self.found_rate:  # what it decided of the weights and the optimiser is in the state, which is loaded next
            self.method.take_rate(self.found_rate["chosen"])

    def new_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.method.make_optimizer()
        if len(self.stack) > 1:
            check_elementwise(optimizer, len(self.stack))
        return optimizer

    # Training

    @Rows(one_by_one=True)  # an image's features depend on no other image
    def training_step(self, cursor: int, batch_idx: int) -> Tensor:
        dtype, records, self.evaluated = next(self.parameters()).dtype, self.records, None
        batches = self.trainer.datamodule.batches(cursor, self.device)
        batches = {number: batch._replace(x=batch.x.to(dtype)) for number, batch in batches.items()}
        places = {number: self.stack.streams[number].place(cursor) for number in batches}
        if cursor == 0 and self.views:
            self._evaluate(dict.fromkeys(batches, -1))
        started = time.monotonic()
        found = take_step(self.stack, batches, places, cursor, self.device)
        for number, (_, score) in found.items():
            records[number].total[places[number].experience] += score
            records[number].num_samples[places[number].experience] += len(batches[number].y)
        self._spend(time.monotonic() - started)
        ended = {number: place.experience for number, place in places.items() if place.last}
        late = self.method.learns_at_end
        self._evaluate({n: experience for n, experience in ended.items() if records[n].is_due(experience, late)})
        self._evaluate_part({n: places[n].experience for n in batches if records[n].is_instant(cursor, late)}, cursor)
        loss, size = torch.stack([loss for loss, _ in found.values()]).mean(), sum(len(batch.y) for batch in batches.values())
        self.log("train/loss", loss, batch_size=size)
        total, samples = (torch.stack([getattr(one, name) for one in records]).sum() for name in ("total", "num_samples"))
        self.log(f"train/prequential_{self.measure.score}", total / samples, batch_size=size)
        # Lightning counts calls of the optimiser; here a step is a batch of the stream, whatever the method does with it.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()
        self.trainer.should_stop |= cursor + 1 == self.trainer.datamodule.num_steps
        return loss

    # Scores

    def _spend(self, seconds: float) -> None:
        """Adds seconds of learning, which the streams share."""
        for record in self.records:
            record.seconds += seconds / len(self.records)

    def _evaluate(self, experiences: dict[int, int]) -> None:
        """Fills the rows of R after these experiences of streams, -1 for before any training."""
        if not (experiences and self.views):
            return
        before = min(record.last_scored for record in self.records)
        for number, found in self.mean_scores(experiences).items():
            for view, scores in found.items():
                self.records[number].scores(view)[experiences[number] + 1] = scores
        after = min(record.last_scored for record in self.records)
        self.evaluated = after if after > before else None

    def _evaluate_part(self, experiences: dict[int, int], cursor: int) -> None:
        """Scores streams that are at these experiences on some of the images."""
        if not (experiences and self.views):
            return
        for number, found in self.mean_scores(experiences, self.anytime_images).items():
            record, experience, instant = self.records[number], experiences[number], cursor // self.anytime_every
            record.anytime[instant, : experience + 1] = found[self.views[0]][: experience + 1]
            record.anytime_experience[instant] = experience

    def mean_scores(self, numbers: Iterable[int], num_images: int | None = None) -> dict[int, dict[str, Tensor]]:
        """The mean score of streams on the test samples of each experience, in each view, of shape (experiences,)."""
        asked = self.method.predict_seconds
        found = mean_scores(self.stack, numbers, self.views, self.device, num_images)
        self._spend(self.method.predict_seconds - asked)
        return found

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Scores the finished learner once more on all experiences, as a check of the last row of R."""
        seconds, gradients = [record.seconds for record in self.records], self.method.num_gradients.clone()
        found = self.mean_scores(range(len(self.stack))).values()
        for view in self.views:
            self.log(f"test/{self.measure.score}_{view}", torch.stack([own[view] for own in found]).mean().float(), batch_size=1)
        for record, spent in zip(self.records, seconds, strict=True):
            record.seconds = spent  # the check is no part of what learning cost
        self.method.num_gradients.copy_(gradients)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """All numbers of each stream so far."""
        found = []
        for number, record in enumerate(self.records):
            with self.stack.alone(number) as method:
                found.append(record.summary(method))
        return found

    @property
    def evaluation(self) -> dict[str, Any]:
        """Those of the first stream."""
        return self.evaluations[0]
