"""learn2learn's own Omniglot pipeline, on archives that lie on this machine."""

import importlib
import io
import pickle
import shutil
import tempfile
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from torchvision.datasets import Omniglot
from torchvision.datasets.utils import calculate_md5

from app.errors import InputError

ARCHIVES = ("images_background", "images_evaluation")


def import_learn2learn() -> ModuleType:
    """learn2learn, without the warnings of its old imports."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module("learn2learn")


def unpacked(data_dir: Path, folder: Path) -> Path:
    """A folder in which torchvision finds Omniglot without a download, and learn2learn its index; made once.

    learn2learn would open all 32,460 pictures to learn their labels: it gets them from the file names instead.

    Args:
        data_dir: folder of an `omniglot-py` folder with the authors' two archives, or that folder itself.
        folder: what the result is written into.

    Raises:
        InputError: the archives are not there.
    """
    source = data_dir if data_dir.name == "omniglot-py" else data_dir / "omniglot-py"
    root = folder / "omniglot"
    if root.exists():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as beside:
        target = Path(beside) / "omniglot" / Omniglot.folder
        target.mkdir(parents=True)
        for name in ARCHIVES:
            archive = source / f"{name}.zip"
            if not archive.is_file():
                raise InputError(f"{archive} does not exist, and learn2learn reads nothing else; give --data_dir its folder")
            shutil.copyfile(archive, target / archive.name)
            with zipfile.ZipFile(archive) as file:
                file.extractall(target)
        labels = _labels(target.parent)
        indices = defaultdict(list)
        for index, label in enumerate(labels):
            indices[label].append(index)
        index = {"labels_to_indices": dict(indices), "indices_to_labels": dict(enumerate(labels)), "labels": list(indices)}
        (target.parent / "omniglot-bookkeeping.pkl").write_bytes(pickle.dumps(index))
        target.parent.rename(root)
    return root


def _labels(root: Path) -> list[int]:
    """The label of every picture, in the order of learn2learn's `FullOmniglot`."""
    labels: list[int] = []
    for background in (True, False):
        with _accepted(root):
            part = Omniglot(str(root), background=background)
        first = max(labels, default=-1) + 1
        labels += [first + label for _, label in part._flat_character_images]
    return labels


@contextmanager
def _accepted(root: Path) -> Iterator[None]:
    """Inside, torchvision takes the archives for the published ones: the same pictures may have been packed again."""
    sums = {name: calculate_md5(root / Omniglot.folder / f"{name}.zip") for name in ARCHIVES}
    with patch.dict(Omniglot.zips_md5, sums):
        yield


def tasksets(root: Path, ways: int, samples: int) -> Any:
    """learn2learn's train, validation and test tasks as its example makes them; `sample()` draws one.

    Args:
        root: of `unpacked`.
        ways: classes in a task.
        samples: pictures of each class, support and query together.
    """
    learn2learn = import_learn2learn()
    with _accepted(root):
        return learn2learn.vision.benchmarks.get_tasksets(
            "omniglot",
            train_ways=ways,
            train_samples=samples,
            test_ways=ways,
            test_samples=samples,
            num_tasks=20000,
            root=str(root),
        )
