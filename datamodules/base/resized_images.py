"""What the data sets share whose pictures can have any size."""

from abc import abstractmethod
from pathlib import Path
from typing import Literal

from app.errors import check_at_least
from datamodules.base.images import ImageEpisodes
from datamodules.files.image_split import ImageSplit
from datamodules.files.pictures import Form, Square


class ResizedImages(ImageEpisodes):
    """Base of the data sets whose pictures are resized to a square and decoded once: a subclass gives `cached`.

    Args:
        image_size: height and width in pixels; null for pictures as they are, which an encoder alone can take.
        channels: 3 for RGB, 1 for grey.
        cache_dir: where the decoded pictures are kept, null for the user's cache folder.
        kwargs: of ImageEpisodes.
    """

    def __init__(self, image_size: int | None, channels: Literal[1, 3], cache_dir: Path | None, **kwargs):
        super().__init__(**kwargs)
        check_at_least(1, "data", image_size=image_size)
        self.image_size, self.channels, self.cache_dir = image_size, channels, cache_dir
        self.as_they_are = image_size is None
        self.form: Form = self.encoder if self.as_they_are else Square(image_size, channels)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        return self.form.shape

    @property
    @abstractmethod
    def cached(self) -> dict[str, ImageSplit]:
        """The images of each split, from the cache, which is filled first where it is empty; computed once."""

    def prepare_data(self) -> None:
        _ = self.cached

    def read_split(self, split: str) -> ImageSplit:
        return self.cached[split]
