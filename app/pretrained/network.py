"""A network of timm by its name, with weights from a file."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import InputError
from app.pretrained.restored import checkpoint_has_weights

BLOCK = 1 << 22  # bytes of a file that are digested at a time


def timm() -> ModuleType:
    """The package, whose import takes seconds.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("timm")
    except ModuleNotFoundError as error:
        raise InputError(
            f"pretrained networks need the package {error.name}, which is not installed; run `uv sync --extra pretrained`, or "
            "`pip install timm safetensors`"
        ) from error


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network of timm and its weights.

    Attributes:
        name: such as tf_efficientnet_lite0, or with a tag for its weights, vit_small_patch14_dinov2.lvd142m.
        weights: a file of safetensors, or of torch.save with tensors and plain values alone; null for those that timm downloads.
        size: height and width of its inputs in pixels, null for the network's own.
        option: what stands before `weights` and `size` in messages.
    """

    name: str
    weights: str | None = None
    size: int | None = None
    option: str = "data.encoder"

    @property
    def traits(self) -> "Traits":
        """What the network says of itself.

        Raises:
            InputError: timm is not installed, knows no such network, or the network takes no pictures of that size.
        """
        return _traits(self.name, self.size, self.option)

    @property
    def path(self) -> Path | None:
        """The file of the weights.

        Raises:
            InputError: it is none.
        """
        if self.weights is None:
            return None
        path = Path(self.weights).expanduser()
        if not path.is_file():
            is_what = "is a folder" if path.is_dir() else "does not exist"
            raise InputError(
                f"--{self.option}.weights {self.weights} {is_what}; give a .safetensors file, or leave it out where timm may "
                "download"
            )
        return path

    @cached_property
    def digest(self) -> str:
        """Identifies the weights."""
        digest = sha256()
        if self.path is None:
            for name, tensor in self.load().state_dict().items():
                digest.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            with self.path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def load(self) -> nn.Module:
        """The network without its classifier, in evaluation mode: from inputs to features, of shape (rows, features).

        Inside `weights_of_checkpoint` its weights are of no account, and their file is not asked for.

        Raises:
            InputError: the weights cannot be read, or are another network's.
        """
        if checkpoint_has_weights():
            return _headless(_create(self.name, self.size, num_classes=0))
        if self.path is None:
            return self._downloaded()
        state = self._read(self.path)
        classifier = _names(self.traits.config.get("classifier"))
        found = [state[f"{name}.weight"] for name in classifier if isinstance(state.get(f"{name}.weight"), Tensor)]
        num_classes = len(found[0]) if found else 0
        # As many classes as the file has: timm then takes all of its tensors, or says what is wrong.
        overlay = {"state_dict": state, "num_classes": num_classes, "label_offset": 0}
        try:
            net = _create(self.name, self.size, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay)
        except Exception as error:  # what renames the tensors of an older file meets first whatever is absent
            reason = _brief(error)
            raise InputError(
                f"--{self.option}.weights {self.weights} does not hold the weights of {self.name} ({reason}); give its file, or "
                "the name of the network that it is of"
            ) from error
        return _headless(net)

    def _read(self, path: Path) -> dict[str, Any]:
        timm()
        try:
            if path.suffix == ".safetensors":
                state = import_module("safetensors.torch").load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
        except ModuleNotFoundError as error:
            raise InputError(f"a .safetensors file needs the package {error.name}; run `uv sync --extra pretrained`") from error
        except Exception as error:  # a damaged file raises whatever its reader meets first
            raise InputError(
                f"--{self.option}.weights {self.weights} ({path.stat().st_size:,} bytes) is not a whole file of tensors; get it "
                "again, as safetensors"
            ) from error
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):  # where training programs put them
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
                break
        if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
            raise InputError(f"--{self.option}.weights {self.weights} holds no tensors by name; give a file of weights")
        return {name.removeprefix("module."): value for name, value in state.items()}

    def _downloaded(self) -> nn.Module:
        try:
            return _headless(_create(self.name, self.size, pretrained=True))
        except Exception as error:  # of the network, of the hub's package, of a name without published weights
            reason = _brief(error)
            raise InputError(
                f"timm cannot download the weights of {self.name} ({reason}); give a file as --{self.option}.weights"
            ) from error


@dataclass(frozen=True)
class Traits:
    """What a network says of itself, whatever its weights.

    Attributes:
        num_features: size of the vector that it makes of a picture.
        input_shape: channels, height and width of its inputs.
        mean: of the inputs' channels, subtracted from pixels in 0..1.
        std: by which they are then divided.
        crop: mode and share of a resized picture's side that is cut out, and the interpolation by which it was resized.
        prepare: from a picture of any size to uint8 of `input_shape`: resized and cropped as timm does it for this network.
        recipe: that of `prepare`, in words.
        config: what timm knows of the published weights.
    """

    num_features: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: tuple[str, float, str]
    prepare: Callable[[Any], Any]
    recipe: str
    config: dict[str, Any]


@lru_cache
def _traits(name: str, size: int | None, option: str) -> Traits:
    library, place = timm(), option if option.endswith("encoder") else f"{option}.name"
    base = name.split(".")[0]
    if not library.is_model(base) or (name != base and name not in library.list_pretrained(f"{base}.*")):
        near = get_close_matches(name, [*library.list_models(), *library.list_pretrained()], n=3, cutoff=0.5)
        raise InputError(f"--{place} {name} is no network of timm; the nearest are {', '.join(near) or 'none'}")
    try:
        try:
            with torch.device("meta"):  # no weights are needed for shapes
                net = _headless(_create(name, size, num_classes=0))
                config = _data_config(net, size)
                features = net(torch.empty(1, *config["input_size"]))
        except (NotImplementedError, RuntimeError):  # some networks compute with numbers when they are built
            net = _headless(_create(name, size, num_classes=0))
            config = _data_config(net, size)
            with torch.no_grad():
                features = net(torch.zeros(1, *config["input_size"]))
    except Exception as error:
        of_size = f" of {size} pixels" if size else ""
        raise InputError(
            f"--{place} {name} makes no features of pictures{of_size} ({_brief(error)}); give another --{option}.size or network"
        ) from error
    if features.ndim != 2 or config["input_size"][0] != 3:
        raise InputError(f"--{place} {name} makes no vector of a colour picture; choose another network")
    from timm.data import create_transform

    prepare = create_transform(**config, is_training=False, use_prefetcher=True)
    recipe = " ".join(str(prepare).split())

    def prepared(image: Any) -> Any:
        return prepare(image.convert("RGB")).numpy()

    shape, mean, std = (tuple(config[key]) for key in ("input_size", "mean", "std"))
    crop = (config["crop_mode"], config["crop_pct"], config["interpolation"])
    return Traits(features.shape[1], shape, mean, std, crop, prepared, recipe, net.pretrained_cfg)


def _create(name: str, size: int | None, **options: Any) -> nn.Module:
    config = timm().models.get_pretrained_cfg(name)
    sized = {"img_size": size} if size and config is not None and config.fixed_input_size else {}
    return timm().create_model(name, **sized, **options)


def _data_config(net: nn.Module, size: int | None) -> dict[str, Any]:
    from timm.data import resolve_data_config

    return resolve_data_config({"input_size": (3, size, size)} if size else {}, pretrained_cfg=net.pretrained_cfg)


def _headless(net: nn.Module) -> nn.Module:
    net.reset_classifier(0)
    return net.eval()


def _names(classifier: Any) -> tuple[str, ...]:
    return (classifier,) if isinstance(classifier, str) else tuple(classifier or ())


def _brief(error: Exception) -> str:
    """The first thing that an error says, without the line that only names the class, and of many tensors the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[1] if lines[0].startswith("Error(s) in loading") and len(lines) > 1 else lines[0]
    return said.split('", "')[0].rstrip(". ")[:160]
