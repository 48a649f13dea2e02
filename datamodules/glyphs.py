"""Few-shot classification of printed characters, drawn on the spot from the faces that come with matplotlib."""

import math
import re
import unicodedata
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from app.errors import InputError
from datamodules.base.images import ImageEpisodes
from datamodules.files.cache import cached_arrays
from datamodules.files.image_split import SPLITS, ImageSplit

FORMAT = 1  # raise it with every change that alters a pixel, a class or a split
SIDE = 28
FACE_FILE = re.compile(r"(DejaVu(Sans|SansMono|Serif)(-\w+)?|STIXGeneral\w*)\.ttf")
NUM_FACES = 16
LEAST_IMAGES = 4
SCRIPTS = {
    "val": re.compile(r"\b(CYRILLIC|ARABIC|LAO)\b"),
    "test": re.compile(r"\b(CANADIAN SYLLABICS|GEORGIAN|ARMENIAN|HEBREW)\b"),
}


class Glyphs(ImageEpisodes):
    """Tasks of telling characters apart: a class is a character, its images are that character in up to 16 faces.

    Test classes are Canadian syllabics, Georgian, Armenian and Hebrew, validation classes Cyrillic, Arabic and Lao, training
    classes all others. Characters that look the same (A, Alpha and the Cyrillic A) are one class, a training class if any of
    them is. Nothing is downloaded: the images are drawn at the first start, in some 10 seconds.

    Args:
        queries: query images of each class; `shots` + `queries` of at most 4 fits every class.
        train_queries: query images of each class in training, null for `queries`.
        cache_dir: folder of the drawn images (some 20 MB), null for the user's cache folder.
    """

    picture_shape = (1, SIDE, SIDE)
    inverts_pictures = True

    def __init__(self, queries: int = 3, train_queries: int | None = 1, cache_dir: Path | None = None, **kwargs):
        super().__init__(queries=queries, train_queries=train_queries, **kwargs)
        self.cache_dir = cache_dir

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        paths = face_paths()
        versions = [FORMAT, features.version("pil"), features.version("freetype2"), unicodedata.unidata_version]
        key = repr([versions, [sha256(path.read_bytes()).hexdigest() for path in paths]])
        return cached_arrays(self.cache_dir, "glyphs", key, lambda: build(paths))

    def prepare_data(self) -> None:
        _ = self._arrays

    def read_split(self, split: str) -> ImageSplit:
        images, counts, names, digest = (self._arrays[f"{split}_{part}"] for part in ("images", "counts", "names", "digest"))
        return ImageSplit(images, counts, names.tolist(), str(digest))


def face_paths() -> list[Path]:
    """The files of the text faces, four styles of four families."""
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    paths = sorted(path for path in folder.glob("*.ttf") if FACE_FILE.fullmatch(path.name))
    if len(paths) != NUM_FACES:
        raise InputError(
            f"matplotlib's font folder {folder} has {len(paths)} of the {NUM_FACES} faces; reinstall matplotlib from PyPI"
        )
    return paths


def build(paths: list[Path]) -> dict[str, np.ndarray]:
    """Images, counts, names and digest of every split."""
    fonts = [ImageFont.truetype(path, size=72, layout_engine=ImageFont.Layout.BASIC) for path in paths]
    splits = {split: [] for split in SPLITS}
    for code, faces in choose_classes(draw_characters(paths, fonts)).items():
        images = [picture(fonts[face], code, distortion(code, face)) for face in faces]
        splits[split_of(code)].append((f"U+{code:04X} {unicodedata.name(chr(code))}", images))
    arrays = {}
    for split, classes in splits.items():
        classes.sort(key=lambda named: named[0])
        images = np.stack([image for _, images in classes for image in images])[:, None]
        counts = np.array([len(images) for _, images in classes])
        names = np.array([name for name, _ in classes])
        digest = np.array(sha256(images.tobytes() + repr((split, counts.tolist(), names.tolist())).encode()).hexdigest())
        arrays |= {f"{split}_images": images, f"{split}_counts": counts, f"{split}_names": names, f"{split}_digest": digest}
    return arrays


def split_of(code: int) -> str:
    """The split that the script of a character belongs to."""
    name = unicodedata.name(chr(code))
    return next((split for split, scripts in SCRIPTS.items() if scripts.search(name)), "train")


def draw_characters(paths: list[Path], fonts: list[ImageFont.FreeTypeFont]) -> dict[int, dict[int, np.ndarray]]:
    """Undistorted pictures by code point and face, of the characters with at least 4 different ones.

    The demand for different pictures leaves out what the styles of a family share: box drawing, dominoes, hexagrams.
    """
    from matplotlib.ft2font import FT2Font

    faces: dict[int, list[int]] = {}
    for face, path in enumerate(paths):
        for code in FT2Font(str(path)).get_charmap():
            faces.setdefault(code, []).append(face)
    drawn = {}
    for code in sorted(faces):
        # Letters, numbers, punctuation and symbols: the rest is invisible, private, or combines with a letter.
        if len(faces[code]) < LEAST_IMAGES or unicodedata.category(chr(code))[0] not in "LNPS":
            continue
        pictures = {face: image for face in faces[code] if (image := picture(fonts[face], code)) is not None}
        if len({image.tobytes() for image in pictures.values()}) >= LEAST_IMAGES:
            drawn[code] = pictures
    return drawn


def picture(font: ImageFont.FreeTypeFont, code: int, warp: tuple[float, ...] = (1, 0, 0, 0, 1, 0)) -> np.ndarray | None:
    """A character whose ink fills the frame but for a pixel on each side, or None if it has no ink.

    Args:
        font: of a size that gives the ink more pixels than the frame has.
        code: of the character.
        warp: rows of the affine map about the centre from the frame's pixels to those of the undistorted picture.
    """
    left, top, right, bottom = font.getbbox(chr(code))
    ink = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(ink).text((-left, -top), chr(code), fill=255, font=font)
    box = ink.getbbox()
    if box is None:
        return None
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    scale = max(box[2] - box[0], box[3] - box[1]) / (SIDE - 2)
    a, b, c, d, e, f = (scale * value for value in warp)
    half = SIDE / 2
    # Drawn at twice the size and averaged, hence the halved slopes.
    coefficients = (a / 2, b / 2, x + c - (a + b) * half, d / 2, e / 2, y + f - (d + e) * half)
    return np.asarray(
        ink.transform((2 * SIDE, 2 * SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR).reduce(2)
    )


def distortion(code: int, face: int) -> tuple[float, ...]:
    """A small rotation, shear, scaling and shift that depends on nothing but the example, as `picture` takes it."""
    generator = np.random.Generator(np.random.Philox(key=np.array([code, face], dtype=np.uint64)))
    angle, shear, scale, x, y = generator.uniform([-0.2, -0.2, 0.75, -1.5, -1.5], [0.2, 0.2, 0.95, 1.5, 1.5]).tolist()
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return cos, shear * cos - sin, x, sin, shear * sin + cos, y


def choose_classes(drawn: dict[int, dict[int, np.ndarray]]) -> dict[int, list[int]]:
    """The characters that stand for a class, each with the faces of its images.

    Characters take their turn split after split, training first. One that looks like a class in at least half of the faces
    that both have belongs to that class. Where it does so in fewer (the Cyrillic te in italics is an m), it goes without these
    pictures: so no task has two classes that cannot be told apart, and no picture seen in training is in another split.
    """
    order = sorted(drawn, key=lambda code: (SPLITS.index(split_of(code)), code))
    lookalikes: dict[int, dict[int, set[int]]] = {code: {} for code in drawn}  # of a code: earlier codes, with the faces
    for face in range(NUM_FACES):
        codes = [code for code in order if face in drawn[code]]
        for later, earlier in alike(np.stack([drawn[code][face] for code in codes])).tolist():
            lookalikes[codes[later]].setdefault(codes[earlier], set()).add(face)

    classes: dict[int, list[int]] = {}
    seen: set[bytes] = set()
    for code in order:
        rivals = {rival: faces for rival, faces in lookalikes[code].items() if rival in classes}
        if any(2 * len(faces) >= len(drawn[code].keys() & drawn[rival].keys()) for rival, faces in rivals.items()):
            continue
        taken = {face for rival, faces in rivals.items() for face in faces.intersection(classes[rival])}
        new = {drawn[code][face].tobytes(): face for face in sorted(drawn[code].keys() - taken, reverse=True)}
        faces = sorted(face for pixels, face in new.items() if pixels not in seen)
        if len(faces) >= LEAST_IMAGES:
            classes[code] = faces
            seen.update(new)
    return classes


def alike(pictures: np.ndarray) -> np.ndarray:
    """Pairs of pictures that are the same but for shifts of their outlines by a pixel: rows (later, earlier).

    Ink of one must lie within a pixel of ink or grey of the other, and paper within a pixel of paper or grey.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    size = (1, 3, 3)
    here = np.stack([pictures > 115, pictures < 140], 1).reshape(len(pictures), -1)
    not_near = np.stack([maximum_filter(pictures, size) < 80, minimum_filter(pictures, size) > 175], 1).reshape(len(pictures), -1)
    # A part of the pixels rules out most pairs, by a product whose counts are exact in float32: the same on every machine.
    misses = here[:, ::5].astype(np.float32) @ not_near[:, ::5].T.astype(np.float32)
    later, earlier = np.nonzero(np.tril(misses + misses.T == 0, -1))
    same = ~((here[later] & not_near[earlier]) | (here[earlier] & not_near[later])).any(1)
    return np.stack([later, earlier], 1)[same]
