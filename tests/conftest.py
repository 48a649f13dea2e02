"""Fixtures that several test files share."""

import gc
import os
import warnings
from collections import Counter
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

# Before torch is imported: tests are small, and threads that wait for each other crawl on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # Lightning 2.6 calls what jsonargparse has renamed
ROOT = Path(__file__).parent.parent
os.fsync = lambda _: None  # no test cuts the power, and a flush waits for the disk
metadata.entry_points = cache(metadata.entry_points)  # which each trainer asks for, and the files of all packages are read


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with most slow tests begin: one of them at the end would leave the other workers idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """All libraries are imported: no collection walks their objects again, a quarter of a second each."""
    import torch

    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else every step of an optimiser looks for a GPU: Lightning asks for that
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # frozen objects outlive the interpreter, and triton complains of each


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; tests that need it skip where it is absent."""
    path = Path(os.environ.get("META_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data in {path}: set META_DATA_DIR to a folder with omniglot-py/ and caltech101_84/")
    return path


@pytest.fixture
def float64():
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def l2l():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import learn2learn
    return learn2learn


@pytest.fixture(scope="session")
def archives(tmp_path_factory) -> Path:
    """The folder of Omniglot's archives with 2 synthetic drawers."""
    from helpers.drawings import write_archives

    folder = tmp_path_factory.mktemp("data") / "omniglot-py"
    folder.mkdir()
    write_archives(folder)
    return folder.parent
