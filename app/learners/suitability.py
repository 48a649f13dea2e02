"""Whether a learner is for the data: what both classes say of themselves is compared once, before either is built.

Where the options matter too, the built learner is asked: `Learner.check_data`.
"""

from app.errors import InputError
from app.learners.learner import Learner, concrete_subclasses
from datamodules.base.episodic import EpisodicDataModule
from datamodules.base.images import ImageEpisodes
from datamodules.base.resumable import ResumableDataModule
from datamodules.base.stream import StreamDataModule


def check_suits(learner: type[Learner], data: type[ResumableDataModule]) -> None:
    """Raises an InputError where the learner is not for such data.

    Args:
        learner: says in `learns_from`, `task_types` and `learns_streams` what it is for.
        data: say in `task_type` and `has_streams` what they are.
    """
    if not issubclass(data, learner.learns_from):
        if issubclass(data, StreamDataModule):
            raise InputError(
                f"--data {data.__name__} is a stream, and --model {learner.__name__} learns from tasks; give --model "
                "ContinualLearner"
            )
        raise InputError(f"--model {learner.__name__} needs a stream, and --data is {data.__name__}; choose a stream")
    others = sorted(cls.__name__ for cls in concrete_subclasses(Learner) if _suits(cls, data))
    remedy = f"choose one of {', '.join(others)}"
    if data.task_type not in learner.task_types:
        raise InputError(
            f"--model {learner.__name__} is for {learner.task_types[0]}, and the tasks of --data are {data.task_type}; {remedy}"
        )
    if not _suits(learner, data):
        raise InputError(
            f"--data {data.__name__} tests on streams of many classes, and --model {learner.__name__} is for tasks of one size; "
            f"{remedy}"
        )


def _suits(learner: type[Learner], data: type[ResumableDataModule]) -> bool:
    tests_on_streams = issubclass(data, EpisodicDataModule) and data.has_streams
    return (
        issubclass(data, learner.learns_from)
        and data.task_type in learner.task_types
        and (learner.learns_streams or not tests_on_streams)
    )


def check_tasks(learner: Learner, data: EpisodicDataModule) -> None:
    """Raises an InputError where the learner is not for such tasks."""
    check_copies(learner, data)
    if getattr(data, "normalise", None):
        check_pixels(learner)
    if "train" in data.used_splits:
        check_labels(learner, data)
        check_ways(learner, data)


def check_pixels(learner: Learner) -> None:
    """Raises an InputError where the learner, or its backbone, takes no pixels that were normalised."""
    net = getattr(learner, "net", None)
    if learner.needs_pixels or getattr(net, "needs_pixels", False):
        part = f"--model {type(learner).__name__}" if learner.needs_pixels else f"--model.backbone {type(net).__name__}"
        raise InputError(f"{part} takes pixels from 0 to 1; leave --data.normalise out")


def check_labels(learner: Learner, data: EpisodicDataModule) -> None:
    """Raises an InputError where the labels of training are not numbered as the learner says in `global_labels`."""
    wanted = learner.global_labels
    if getattr(data, "global_labels", False) != wanted:
        labels = "all training classes at once" if wanted else "the classes of one task at a time"
        raise InputError(
            f"{type(learner).__name__} learns {labels}, which --data.global_labels {str(not wanted).lower()} of "
            f"{type(data).__name__} does not number; build the data with {str(wanted).lower()}"
        )


def check_ways(learner: Learner, data: EpisodicDataModule) -> None:
    """Raises an InputError where training tasks have changing numbers of classes, and the learner's head a fixed one."""
    fewest, most = data.sizes.train_ways if isinstance(data, ImageEpisodes) else (0, 0)
    if fewest < most and not learner.any_ways:
        raise InputError(
            f"--data.train_ways [{fewest},{most}] draws another number of classes for every step, and {type(learner).__name__}'s "
            "head has a fixed one; give one number, or choose an algorithm for any number, such as ProtoNet or UNICORN"
        )


def check_copies(learner: Learner, data: EpisodicDataModule) -> None:
    """Raises an InputError where support sets are to be of changed copies, and nothing says how pictures are changed."""
    if learner.support_copies and not getattr(data, "augment", None):
        raise InputError(
            f"--model.support_copies {learner.support_copies} changes pictures as --data.augment says, which is null; give "
            "PaddedCrop or ResizedCrop, or leave it out"
        )


def check_equal_sizes(data: EpisodicDataModule) -> None:
    """Raises an InputError where the training tasks of outer steps differ in size, so that each would be compiled."""
    firsts = (data.episode("train", step * data.meta_batch_size) for step in range(16))
    if len({tuple(tensor.shape for tensor in episode) for episode in firsts}) > 1:
        raise InputError(
            f"--model.compile true compiles a program for each size of a task, and --data {type(data).__name__} draws another "
            "one for every step; leave it out, or give the data one size"
        )
