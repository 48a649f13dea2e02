"""The verb `embed`: the features of pictures as a file."""

import os
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

import numpy as np

from app.deploy.verb import Verb
from app.errors import InputError
from datamodules.base.encoder import Encoder
from datamodules.files.class_folders import split_named
from datamodules.files.picture_files import PictureFiles, printable
from datamodules.files.pictures import undecoded_splits


class Embed:
    """Writes the features of pictures by a pretrained network, for `--data FeatureTable` or any other program.

    The file is a .npz with an array `feature`, of shape (pictures, features), and for each picture its `label`, the name of its
    folder, its `name`, and its `split` where it lies in a folder train, val or test.

    Args:
        encoder: name of a network of timm.
        pictures: a folder or .zip of pictures, each in the folder of its class or in none.
        out: the file.
        cache_dir: where features are kept, null for the user's cache folder; what is stopped goes on from there.
    """

    def __init__(self, encoder: Encoder, pictures: Path, out: Path = Path("features.npz"), cache_dir: Path | None = None):
        self.encoder, self.cache_dir = encoder, cache_dir
        self.pictures, self.out = Path(pictures).expanduser(), Path(out).expanduser()
        if self.out.suffix != ".npz" or self.out.is_dir():
            raise InputError(f"--out {out} is no name of such a file; give one that ends in .npz")
        if not self.pictures.exists():
            raise InputError(f"--pictures {pictures} does not exist; give a folder or a .zip of <class>/<picture>")

    def run(self) -> int:
        """Writes the file and says what is in it."""
        files = PictureFiles(self.pictures, "replace or remove it, or change --pictures")
        if not files.pictures:
            raise InputError(f"--pictures {self.pictures} holds no pictures; give a folder or a .zip of <class>/<picture>")
        files.say_others("--pictures")
        split = undecoded_splits({"all": {"all": files.pictures}}, self.encoder)["all"]
        features = self.encoder.encoded(split, self.cache_dir, "embed", prepared=True).images
        places = [PurePosixPath(printable(picture.name)) for picture in files.pictures]
        arrays = {"feature": features, "label": np.array([place.parent.name for place in places])}
        arrays["name"] = np.array([str(place) for place in places])
        splits = [next(filter(None, map(split_named, place.parts[:-1])), None) for place in places]
        if all(splits):
            arrays["split"] = np.array(splits)
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.out.parent, prefix=f".{self.out.stem}-", suffix=".npz", delete=False) as beside:
                np.savez(beside, **arrays)
            os.replace(beside.name, self.out)
        except OSError as error:
            raise InputError(f"--out {self.out} cannot be written ({error.strerror or error}); give another file") from error
        num_classes = len(set(arrays["label"].tolist()))
        print(f"{self.out}: {len(places):,} pictures of {num_classes:,} classes, {features.shape[1]:,} features each")
        return 0


def embed(args: list[str]) -> int:
    """Runs the verb and returns the exit status.

    Args:
        args: the command line after the verb.
    """
    verb = Verb("embed", Embed, "embed has none")
    options = verb.options(verb.read(args))
    try:
        return Embed(**options | {"encoder": Encoder(**options["encoder"]["init_args"])}).run()
    except InputError as error:
        raise InputError(str(error).replace("--data.encoder", "--encoder")) from error
