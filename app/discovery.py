"""Finding what stands in a folder: every class in it is known by its name, without a list of them."""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import walk_packages


def import_modules(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package and of the packages in it.

    Args:
        package: its `__name__`.
        path: its `__path__`.
    """
    for module in walk_packages(path, f"{package}."):
        import_module(module.name)
