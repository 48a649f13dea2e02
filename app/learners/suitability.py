"""Whether a method suits the data and the options."""

from app.errors import InputError
from app.learners.learner import Learner
from datamodules.base.episodic import EpisodicDataModule


def check_task_type(method: type[Learner], task_type: str, methods: list[type[Learner]]) -> None:
    """Raises an InputError where the method is not for the tasks of the data set.

    Args:
        method: says in `task_types` what it is for.
        task_type: of the data set.
        methods: from which the error names those that fit.
    """
    if task_type not in method.task_types:
        fitting = [cls.__name__ for cls in methods if task_type in cls.task_types]
        raise InputError(
            f"--model {method.__name__} is for {method.task_types[0]}, and the tasks of --data are {task_type}; choose one "
            f"of {', '.join(sorted(fitting))}"
        )


def check_task_sizes(method: type[Learner], data: EpisodicDataModule, methods: list[type[Learner]]) -> None:
    """Raises an InputError where the data set tests on streams, and the method does not say that it `learns_streams`."""
    if data.has_streams and not method.learns_streams:
        fitting = [cls.__name__ for cls in methods if cls.learns_streams]
        raise InputError(
            f"--data {type(data).__name__} tests on streams of up to {data.output_size} classes, and --model "
            f"{method.__name__} is for tasks of one size; choose one of {', '.join(sorted(fitting))}"
        )


def check_labels(method: type[Learner], data: EpisodicDataModule) -> None:
    """Raises an InputError where the labels of training are not numbered as the method says in `global_labels`."""
    wanted = method.global_labels
    if getattr(data, "global_labels", False) != wanted:
        labels = "all training classes at once" if wanted else "the classes of one task at a time"
        raise InputError(
            f"{method.__name__} learns {labels}, which --data.global_labels {str(not wanted).lower()} of "
            f"{type(data).__name__} does not number; build the data with {str(wanted).lower()}"
        )


def check_compiles(method: type[Learner], wanted: bool, methods: list[type[Learner]]) -> None:
    """Raises an InputError where a compiled step is wanted of a method that does not say that it `can_compile`.

    Each class says so for itself: what a subclass adds may depend on more than tensors.
    """
    fitting = sorted(cls.__name__ for cls in methods if vars(cls).get("can_compile"))
    if wanted and not vars(method).get("can_compile"):
        raise InputError(
            f"--model.compile true is not for {method.__name__}; leave it out, or choose one of {', '.join(fitting)}"
        )


def check_equal_sizes(data: EpisodicDataModule) -> None:
    """Raises an InputError where the training tasks of outer steps differ in size, so that each would be compiled."""
    firsts = (data.episode("train", step * data.meta_batch_size) for step in range(16))
    if len({tuple(tensor.shape for tensor in episode) for episode in firsts}) > 1:
        raise InputError(
            f"--model.compile true compiles a program for each size of a task, and --data {type(data).__name__} draws another "
            "one for every step; leave it out, or give the data one size"
        )
