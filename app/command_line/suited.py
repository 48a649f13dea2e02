"""Defaults that follow from the data: what suits small characters learns nothing from photographs, tables or streams.

They lie below whatever is given, and a class that a config names has the config's options alone.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from app.command_line import words
from app.command_line.classes import options_of
from app.command_line.section import Section, as_section
from app.command_line.words import Word
from app.learners.learner import concrete_subclasses
from datamodules.base.images import ImageEpisodes
from datamodules.csv_regression import CsvRegression

SMALL = 32 * 32  # numbers of a picture: grey characters have no more
NUMBERS = {"cpu": 2**22, "gpu": 2**26}  # in the pictures of an outer step: about a second of two cores
TASKS = (2, 32)  # of an outer step, at least and at most
VALIDATION = {"cpu": 2**26, "gpu": 2**30}  # numbers in the pictures of a validation
EPISODES = (40, 200)
PHOTOGRAPHS = {  # as in the published settings for 84x84, by algorithm
    "MAML": {"inner_lr": "0.05", "inner_steps": "5", "eval_inner_steps": "10"},
    "MetaCurvature": {"inner_lr": "0.05", "inner_steps": "5", "eval_inner_steps": "10"},
    "MAMLPP": {"inner_lr": "0.01"},
    "ALFA": {"inner_lr": "0.01"},
    "CAVIA": {"inner_lr": "0.1"},  # steps of 1.0 raised the loss above that of a guess
    "NeuralStatistician": {"context_size": "64", "hidden_size": "128", "width": "16"},  # as on glyphs: many steps in minutes
}
# Of photographs: few large ones are drawn in minutes, and CAVIA, whose tasks share the head, needs more tasks than they leave.
SIDES = {"NeuralStatistician": "28", "CAVIA": "28"}
TABLES = {  # a group may have numbers far from those of the others
    "MAML": {"inner_lr": "0.1", "inner_steps": "10", "backtracks": "true"},
    "MetaCurvature": {"inner_lr": "0.05", "inner_steps": "5", "backtracks": "true"},
}
ADAM = Section("torch.optim.Adam", {"lr": Word("0.0003")})
GLYPHS = {"num_classes": "50", "train_images": "8", "test_images": "4"}  # of a stream: few characters have 20 faces
STREAMS = {  # under a beta of `replay` each replayed picture weighs as much as the one that arrives
    "ER": {"replay": Word("10"), "glances": Word("5"), "optimizer": ADAM},
    "DERPP": {"replay": Word("10"), "glances": Word("5"), "optimizer": ADAM, "beta": Word("10")},
    "LaMAML": {"alpha": Word("0.03"), "rate_lr": Word("0.01")},
}
CONVOLUTIONS = Section(  # one sample after the other: norms keep pictures with a bright ground from deciding everything
    "app.backbones.Conv4", {"width": Word("32"), "downsample": Word("max_pool"), "num_halvings": Word("3")}
)
SIDE = "28"  # of pictures from a folder: on the features of larger ones La-MAML ended at chance


def suited(given: Section, configs: Section, say: Callable[[str], None]) -> Section:
    """The options that suit the data, where nothing else is said of them.

    Args:
        given: all that is said, with a model and data.
        configs: what of it comes from configs.
        say: is told what was chosen, and why.
    """
    model, data = (as_section(given.options.get(section)) for section in ("model", "data"))
    of_config = {section: _is_named(configs, section, own) for section, own in (("model", model), ("data", data))}
    chosen: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    pictures = {cls.__name__: cls for cls in concrete_subclasses(ImageEpisodes)}
    why = ""
    if data.short in pictures and not _has_vectors(pictures[data.short], data):
        cls, side = pictures[data.short], {}
        if model.short in SIDES and "image_size" in options_of(cls) and not of_config["data"]:
            side = {"image_size": SIDES[model.short]} if prod(_shape(cls, data)) > SMALL else {}
        shape = _shape(cls, Section(data.name, {name: Word(value) for name, value in side.items()} | data.options))
        kind = "gpu" if _has_gpu(given) else "cpu"
        why = f"pictures of {'x'.join(map(str, shape))} on the {kind.upper()}"
        if not of_config["data"]:
            chosen["data"] = side | _sizes(cls, data, shape, kind, given)
        if prod(shape) > SMALL:
            chosen["model"] = PHOTOGRAPHS.get(model.short, {})
    elif data.short == CsvRegression.__name__:
        why, chosen["model"] = "tables", TABLES.get(model.short, {})
    elif data.short == "ClassStream" and model.short == "ContinualLearner" and "meta_learned" not in model.options:
        method = as_section(model.options.get("method"))
        own = {name: value for name, value in STREAMS.get(method.short, {}).items() if name not in method.options}
        why, chosen["model"] = "a stream of few pictures", {"method": Section(options=own)} if own else {}
        if words.plain(data.options.get("source")) in (None, "glyphs") and not of_config["data"]:
            chosen["data"] = GLYPHS
        if method.short == "LaMAML" and "backbone" not in model.options and "encoder" not in data.options:
            chosen["model"]["backbone"] = CONVOLUTIONS
            if words.plain(data.options.get("source")) == "image_folder" and not of_config["data"]:
                chosen["data"] = {"image_size": SIDE}
    if of_config["model"]:
        chosen["model"] = {}
    layer, told = {}, []
    for section, own in chosen.items():
        there = as_section(given.options.get(section)).options
        kept = {name: value for name, value in own.items() if name not in there or isinstance(value, Section)}
        told += [f"--{section}.{line}" for name, value in kept.items() for line in _lines(name, value)]
        layer[section] = Section(
            options={name: value if isinstance(value, Section) else Word(value) for name, value in kept.items()}
        )
    if told:
        say(f"chosen for {why}, unless you give others: {', '.join(told)}")
    return Section(options={name: part for name, part in layer.items() if part.options})


def _is_named(configs: Section, section: str, chosen: Section) -> bool:
    """Whether it is a config that names the class."""
    own = as_section(configs.options.get(section))
    return own.name is not None and own.short == chosen.short


def _sizes(cls: type[ImageEpisodes], data: Section, shape: tuple[int, ...], kind: str, given: Section) -> dict[str, Any]:
    """Tasks of an outer step and of a validation, a power of two and a round number, by the numbers in a task's pictures."""
    ways, shots, queries = (
        _number(cls, data, f"train_{name}") or _number(cls, data, name) for name in ("ways", "shots", "queries")
    )
    if not all(isinstance(count, int) for count in (ways, shots, queries)):
        return {}  # what is wrong with them is said elsewhere
    of_task = max(1, ways * (shots + queries) * prod(shape))
    fitting = max(1, NUMBERS[kind] // of_task)
    tasks = min(max(1 << (fitting.bit_length() - 1), TASKS[0]), TASKS[1])
    processes = max(1, _processes(given, kind))
    tasks = -(-tasks // processes) * processes
    episodes = min(max(VALIDATION[kind] // of_task // 10 * 10, EPISODES[0]), EPISODES[1])
    known = {"meta_batch_size": (tasks, TASKS[1]), "val_episodes": (episodes, EPISODES[1])}
    return {name: str(value) for name, (value, usual) in known.items() if value != usual and name in options_of(cls)}


def _number(cls: type, section: Section, name: str) -> Any:
    """The value of an option, or its default."""
    value = section.options.get(name)
    known = options_of(cls)
    return words.plain(value) if value is not None else known[name].default if name in known else None


def _shape(cls: type[ImageEpisodes], data: Section) -> tuple[int, ...]:
    """Channels, height and width of the pictures."""
    own = getattr(cls, "picture_shape", None)
    if isinstance(own, tuple):
        return own
    channels, _, side = getattr(cls, "native_shape", (3, 84, 84))
    size, depth = _number(cls, data, "image_size"), _number(cls, data, "channels")
    side, channels = (one if isinstance(one, int) else other for one, other in ((size, side), (depth, channels)))
    return channels, side, side


def _has_vectors(cls: type[ImageEpisodes], data: Section) -> bool:
    """Whether the inputs are no pictures: an encoder makes vectors of them, or they are rows of a table."""
    encoder = as_section(data.options.get("encoder"))
    return cls.input_shape is not ImageEpisodes.input_shape or words.plain(encoder.name) is not None


def _trainer(given: Section, name: str) -> Any:
    return words.plain(as_section(given.options.get("trainer")).options.get(name))


def _has_gpu(given: Section) -> bool:
    return _trainer(given, "accelerator") != "cpu" and torch.cuda.is_available()


def _processes(given: Section, kind: str) -> int:
    devices, nodes = _trainer(given, "devices"), _trainer(given, "num_nodes")
    count = devices if isinstance(devices, int) and devices > 0 else torch.cuda.device_count() if kind == "gpu" else 1
    return count * (nodes if isinstance(nodes, int) else 1)


def _lines(name: str, value: Any) -> list[str]:
    if not isinstance(value, Section):
        return [f"{name} {value}"]
    own = [f"{name} {value.short}"] if value.name else []
    return own + [f"{name}.{line}" for key, one in value.options.items() for line in _lines(key, one)]
