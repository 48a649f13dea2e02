"""Files fetched from their publishers."""

from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch.utilities import rank_zero_info

from app.errors import InputError


def download(url: str, target: Path, why: str, remedy: str, md5: str | None = None) -> Path:
    """Fetches one file; nothing is left of it, nor of new folders around it, where that fails.

    Args:
        url: where the file is.
        target: where it goes; a file that lies there is replaced by the whole new one.
        why: it is needed, the begin of the error's line.
        remedy: what to do where it cannot be had, the end of the error's line.
        md5: of the file, null where it is not known.

    Raises:
        InputError: there is no network, no such file, or another one.
    """
    from torchvision.datasets.utils import download_url

    unchecked = "" if md5 else ", whose publisher gives no checksum: only its form is looked at"
    rank_zero_info(f"downloading {url} to {target}{unchecked}")
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=target.parent) as beside:
            download_url(url, beside, filename=target.name, md5=md5)
            (Path(beside) / target.name).replace(target)
    except (OSError, RuntimeError, HTTPException) as error:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
        raise InputError(f"{why}, and its download failed ({' '.join(str(error).split())}); {remedy}") from error
    return target
