"""The runs that the table of a stream is made of: one of train.py for every cell."""

import io
import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.progress import Progress

from benchmarks.with_parent import end_with_parent

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "configs" / "experiment"
WITHOUT_FILES = ("glyphs_stream", "sine_stream")
DIVERGED = "became NaN or infinite"  # of a loss
QUIET = ("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


class Cell(NamedTuple):
    """One run.

    Attributes:
        method: the part of the config's name after the stream's.
        scenario: class, task or domain; null for the config's own.
        seed: of the stream and the weights.
        glances: how often it learns what it gets, the option that `repetitions` names; null for the config's own.
        memory: samples that it keeps; null for the config's own.
        rate: learning rate; null for the config's own.
        validation: whether it is scored on what no table shows.
        streams: how many, with the seeds that follow, are learned in the same program.
    """

    method: str
    scenario: str | None
    seed: int
    glances: int | None = None
    memory: int | None = None
    rate: float | None = None
    validation: bool = False
    streams: int = 1

    def folder(self, root: Path) -> Path:
        """Where the run lies."""
        budget = {"glances": self.glances, "memory": self.memory, "rate": self.rate}
        parts = [f"{name}_{count:g}" for name, count in budget.items() if count]
        parts = ["validation", *parts] if self.validation else parts
        seeds = f"seed_{self.seed}" if self.streams == 1 else f"seeds_{self.seed}_to_{self.seed + self.streams - 1}"
        return root.joinpath(self.method, self.scenario or "own", *parts, seeds)


@cache
def code_version() -> str:
    """A hash of all that a run is computed by, so that no cell of other code is taken for one of this."""
    digest = sha256()
    code = (path for folder in ("app", "callbacks", "datamodules") for path in (ROOT / folder).rglob("*.py"))
    for path in (ROOT / "configs" / "default.yaml", *sorted(code)):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def methods_of(stream: str) -> list[str]:
    """All that have a config for the stream and learn within it."""
    names = (path.stem.removeprefix(f"{stream}_") for path in EXPERIMENTS.glob(f"{stream}_*.yaml"))
    return sorted(name for name in names if "method" in model_options(stream, name))


def model_options(stream: str, method: str) -> dict[str, Any]:
    """What the config says of the model."""
    return yaml.safe_load((EXPERIMENTS / f"{stream}_{method}.yaml").read_text())["model"].get("init_args", {})


def repetitions(stream: str, method: str) -> str | None:
    """The option that says how often a method learns what it gets."""
    options = model_options(stream, method)
    name = options["method"]["class_path"].rsplit(".", 1)[-1]
    return {
        "ContinualMAML": None,
        "FTML": "meta_steps",
        "MER": "num_batches",
        "GDumb": "epochs",
        "Joint": "epochs",
        "NearestClassMean": None,
        "BayesianLinear": None,
    }.get(name, "glances")


def method_options(stream: str, method: str) -> dict[str, Any]:
    """What the config says of the method."""
    return model_options(stream, method)["method"].get("init_args", {})


def rate_of(stream: str, method: str) -> str | None:
    """The option of the rate of the steps of the weights, or of La-MAML's first ones; null for a method without steps."""
    options = method_options(stream, method)
    return "optimizer.lr" if "optimizer" in options else next((name for name in ("lr", "alpha") if name in options), None)


def validation_of(stream: str) -> tuple[list[str], str]:
    """The options that make a validation stream, and what it is in words."""
    if stream.endswith("mnist"):
        return ["--data.evaluate_on=val"], "scored on training images that are held out"
    if stream.endswith("_stream") and stream != "sine_stream":
        return ["--data.split=val"], "of validation classes"
    return [], "of other draws"


def memory_of(stream: str, method: str) -> int | None:
    """The samples that a method keeps by its config; null for one without such a memory."""
    return method_options(stream, method).get("memory")


def run(cell: Cell, stream: str, root: Path, data_dir: str, *extra: str) -> dict[str, Any]:
    """The results of a cell, from its folder if it is finished.

    Raises:
        RuntimeError: the run failed; with what it printed.
    """
    from app.main import main as main_of_train  # seconds, and only in the processes that run something

    folder = cell.folder(root)
    results, recipe = folder / "results.json", folder / "recipe"
    chosen = {name: value for name, value in cell._asdict().items() if value not in (None, False)}
    config = (EXPERIMENTS / f"{stream}_{cell.method}.yaml").read_text()
    made_of = sha256(f"{config}{chosen}{code_version()}".encode()).hexdigest()
    if folder.exists() and not (recipe.exists() and recipe.read_text() == made_of):
        shutil.rmtree(folder)  # its config or the code has changed since
    folder.mkdir(parents=True, exist_ok=True)
    recipe.write_text(made_of)
    if not results.exists():
        options = [*QUIET, "--trainer.callbacks=[]", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={folder}", *extra]
        options += [f"--data.data_dir={data_dir}"] * (stream not in WITHOUT_FILES)
        options += [f"--seed_everything={cell.seed}"]
        options += [f"--model.num_streams={cell.streams}"] if cell.streams > 1 else []
        options += [f"--data.scenario={cell.scenario}"] if cell.scenario else []
        options += [f"--model.method.{repetitions(stream, cell.method)}={cell.glances}"] if cell.glances else []
        options += [f"--model.method.memory={cell.memory}"] if cell.memory else []
        options += [f"--model.method.{rate_of(stream, cell.method)}={cell.rate}"] if cell.rate else []
        options += validation_of(stream)[0] if cell.validation else []
        options += ["--ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").exists() else []
        fit = ["fit", "--config", str(EXPERIMENTS / f"{stream}_{cell.method}.yaml"), *options]
        test = ["test", "--config", str(folder / "config.yaml"), "--ckpt_path=last"]
        for arguments in (fit, test):  # a run that was killed after its last step is finished, and only a test writes its results
            sys.argv, printed = ["train.py", *arguments], io.StringIO()
            with redirect_stdout(printed), redirect_stderr(printed):
                try:
                    status = main_of_train()
                except SystemExit as end:  # there was nothing left to do
                    status = end.code
            if status and cell.validation and DIVERGED in printed.getvalue():
                return {"streams": 1, "views": {}, "prequential accuracy": {"mean": None}, "cost": {"seconds": 0.0}}
            if status:
                raise RuntimeError(f"{stream}_{cell.method}, seed {cell.seed}: {printed.getvalue().strip()[-500:]}")
            if results.exists():
                break
    return json.loads(results.read_text())


def begin() -> None:
    """Prepares a process that runs many cells: libraries are imported once, and runs side by side have a thread each."""
    end_with_parent()
    import torch

    torch.set_num_threads(1)


def glances_for(budget: float, once: dict[str, Any], twice: dict[str, Any]) -> int:
    """How often a method must learn what it gets to take so many gradients a sample, over the whole stream.

    Args:
        budget: gradients a sample.
        once: results of the whole stream where it learns everything once.
        twice: the same with two repetitions; not all that a method does at the end of an experience is repeated.
    """
    one, two = (result["cost"]["gradients"] / result["cost"]["samples"] for result in (once, twice))
    return max(1, round(1 + (budget - one) / (two - one)))


def samples_for(budget: float, few: tuple[int, dict[str, Any]], more: tuple[int, dict[str, Any]]) -> int:
    """How many samples a method may keep to need at most so many bytes besides the network.

    Args:
        budget: bytes.
        few: samples, and the results of a run that kept them.
        more: the same with more samples; what grows with them, and what does not, follows from both.
    """
    (count, of_few), (larger, of_more) = few, more
    bytes_of_few, bytes_of_more = (results["cost"]["memory_bytes"] for results in (of_few, of_more))
    return int(count + (budget - bytes_of_few) * (larger - count) // (bytes_of_more - bytes_of_few))


def run_all(cells: list[Cell], processes: int, *where: Any) -> dict[Cell, dict[str, Any]]:
    """The results of all cells, with a progress bar; `where` is what `run` takes besides the cell."""
    results = {}
    with Progress(transient=True) as progress, pool_of(processes) as pool:
        bar = progress.add_task("runs", total=len(cells))
        running = {pool.submit(run, cell, *where): cell for cell in cells}
        try:
            for future in as_completed(running):
                results[running[future]] = future.result()
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {cell: results[cell] for cell in cells}


def pool_of(processes: int) -> ProcessPoolExecutor:
    """Processes that run cells."""
    return ProcessPoolExecutor(processes, get_context("spawn"), initializer=begin)
