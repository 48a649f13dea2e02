"""Photographs of 100 classes, a few at a time."""

from datamodules.base.stream import Experience, Scenario
from datamodules.files.cifar100 import CIFAR100
from datamodules.split_mnist import SplitMNIST


class SplitCIFAR100(SplitMNIST):
    """Split CIFAR-100 (Rebuffi et al. 2017): its 100 classes come ten at a time, in an order that the seed draws.

    With an encoder all 60,000 pictures are encoded once, whatever the order.

    Args:
        scenario: class, all 100 classes compete; task, only those of the experience, whose number is given; domain, the output is
            the place of a class within its experience.
        classes_per_experience: classes of an experience; a divisor of 100.
        shuffle_classes: whether the seed draws the order of the classes.
        kwargs: of MNISTStream, of which `val` are the last 50 training images of each class.
    """

    reader = CIFAR100
    picture_shape = CIFAR100.input_shape
    num_classes = 100

    def __init__(self, scenario: Scenario = "class", classes_per_experience: int = 10, shuffle_classes: bool = True, **kwargs):
        super().__init__(scenario, classes_per_experience, shuffle_classes, **kwargs)

    @property
    def experiences(self) -> list[Experience]:
        """Each called by its number and its first class: the names of all are too long for a table."""
        return [
            experience._replace(title=f"{number + 1}: classes {experience.title.split()[0]}, ...")
            for number, experience in enumerate(super().experiences)
        ]
