"""Every folder is a room with one subject, and imports from the rooms below it alone: the picture of the whole."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import ROOT

CORE = {
    "app.episode",
    "app.errors",
    "app.discovery",
    "app.csv_files",
    "app.given_names",
    "app.shown",
    "app.jsonargparse_internals",
    "app.lightning_internals",
    "app.torch_internals",
}
DATA = {"datamodules.base", "datamodules.files"}
METHODS = {"app.learners", "app.backbones", "app.inner_loop", "app.scores", "datamodules.base"}
# From the top of the house to the bottom: each room, and the rooms that it knows. The core is open to all.
ROOMS: dict[str, set[str]] = {
    "app.main": {"app.deploy", "app.command_line", "app.runs", "callbacks"},
    "app": {"app.deploy"},
    "app.deploy": {
        "app.command_line",
        "app.algorithms",
        "app.continual",
        "app.continual.base",
        "app.continual.methods",
        "app.continual.meta_learned",
        "app.continual.meta_trained",
        "app.runs",
        "app.scores",
        "app.inner_loop",
        "app.learners",
        "app.backbones",
        "app.pretrained",
        *DATA,
    },
    "app.command_line": {
        "callbacks",
        "app.algorithms",
        "app.continual",
        "app.continual.methods",
        "app.continual.meta_learned",
        "app.continual.meta_trained",
        "app.continual.base",
        "app.runs",
        "datamodules",
        "datamodules.base",
        "app.learners",
        "app.backbones",
        "app.pretrained",
    },
    "callbacks": {"callbacks.pictures", "app.continual", "app.learners", "app.runs", "app.scores", "datamodules.base"},
    "callbacks.pictures": {"app.continual", "app.learners", "datamodules.base"},
    "app.report": {"app.runs"},
    "app.continual.meta_learned": {"app.continual", "app.continual.methods", "app.continual.base", "app.runs", *METHODS},
    "app.continual.meta_trained": {"app.runs", *METHODS},
    "app.continual": {
        "app.runs",
        "app.continual.methods",
        "app.continual.base",
        "app.learners",
        "app.backbones",
        "app.scores",
        "app.inner_loop",
        "datamodules.base",
    },
    "app.continual.methods": {"app.continual.base", "app.backbones", "datamodules.base"},
    "app.continual.base": {"app.backbones", "datamodules.base"},
    "app.algorithms": set(),
    "app.algorithms.optimisation_based": METHODS,
    "app.algorithms.metric_based": METHODS,
    "app.algorithms.model_based": METHODS,
    "app.learners": (METHODS - {"app.learners"}) | {"app.runs"},
    "app.runs": {"datamodules.base"},
    "app.backbones": {"app.inner_loop", "app.scores", "app.pretrained"},
    "app.scores": {"datamodules.base"},
    "app.inner_loop": set(),
    "datamodules": DATA,
    "datamodules.base": {"datamodules.files", "app.pretrained"},
    "datamodules.files": set(),
    "app.pretrained": set(),
    **{module: set() for module in sorted(CORE)},
}


def modules() -> dict[str, Path]:
    """All modules of the application by their names; a package is called as its folder."""
    found = {}
    for top in ("app", "callbacks", "datamodules"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The room that a module stands in; one that lies beside the rooms of `app` is a room by itself."""
    return module if module in ROOMS else module.rpartition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """Our own modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import; name the module whole"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in whole]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def test_a_room_knows_only_rooms_below_it():
    order = list(ROOMS)
    upwards = {(own, other) for own in ROOMS for other in ROOMS[own] if order.index(other) <= order.index(own)}
    assert not upwards


def test_every_folder_is_a_room_that_says_what_it_is_for():
    folders = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert folders <= set(ROOMS)
    assert not [name for name in folders if not ast.get_docstring(ast.parse(MODULES[name].read_text()))]


@pytest.mark.parametrize("own", sorted(ROOMS))
def test_a_room_imports_only_what_it_knows(own: str):
    inside = [name for name in MODULES if room(name) == own]
    found = {other: name for name in inside for other in map(room, imports(MODULES[name]))}
    wrong = {name: other for other, name in found.items() if other not in {own, *ROOMS[own], *CORE}}
    assert not wrong, "what a room may import stands in tests/test_rooms.py"


def test_no_file_is_long():
    files = [path for top in ("app", "benchmarks", "callbacks", "datamodules") for path in (ROOT / top).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert not {name: length for name, length in lengths.items() if length > 250}
