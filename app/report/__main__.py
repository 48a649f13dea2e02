"""Writes the runs in some folders as one HTML page: `uv run python -m app.report RUN_DIR [RUN_DIR ...]`.

Of a learner that lives, `birds.learner` in the place of a folder, the page shows its life.
"""

import argparse
import sys
from pathlib import Path

from app.errors import InputError
from app.report.life import life_page
from app.report.page import page
from app.report.recorded_run import read_runs


def main(args: list[str] | None = None) -> int:
    """Writes the page and says where it lies."""
    parser = argparse.ArgumentParser("python -m app.report", description="Runs side by side, as one HTML page.")
    parser.add_argument("run_dir", nargs="+", type=_path, metavar="RUN_DIR", help="folder of a run; or a learner, alone")
    parser.add_argument("--out", type=_path, help="the page; report.html in the folder of a single run, of several here")
    options = parser.parse_args(args)
    try:
        if len(options.run_dir) == 1 and options.run_dir[0].suffix == ".learner":
            out = options.out or options.run_dir[0].with_suffix(".html")
            _write(out, life_page(options.run_dir[0]))
            print(out)
            return 0
        runs = read_runs(options.run_dir)
        out = options.out or (runs[0].path if len(runs) == 1 else Path()) / "report.html"
        _write(out, page(runs))
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{out} ({out.stat().st_size / 2**20:.1f} MiB): {', '.join(run.label for run in runs)}")
    return 0


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _write(out: Path, text: str) -> None:
    beside = out.with_name(f".{out.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give a file in a folder that exists") from error


if __name__ == "__main__":
    sys.exit(main())
