"""What only shows or reports: where it fails, one line says so, and the run goes on."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_shown(what: str, told: set[str] | None = None) -> Iterator[None]:
    """Inside, an error leaves out what was to be shown, and ends nothing else.

    Args:
        what: is shown, the begin of the line that says why it is left out.
        told: what was said to be left out before, and is not said again; null for what is said each time.
    """
    try:
        yield
    except Exception as error:  # libraries, disks and other people's settings fail in many ways
        if told is not None:
            if what in told:
                return
            told.add(what)
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"{what} is left out: {reason[:200]}", file=sys.stderr)


@contextmanager
def drawing(what: str) -> Iterator[None]:
    """The same for a picture; inside, matplotlib has its own settings, whatever the user's are (such as LaTeX for every text)."""
    with only_shown(what):
        from matplotlib import style

        with style.context("default"):
            yield
