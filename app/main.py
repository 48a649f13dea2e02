"""The program: one command line, its errors, its exit status."""

import gc
import logging
import signal
import sys
import warnings
from io import TextIOWrapper

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from app.command_line.allocator import keep_freed_memory
from app.command_line.cli import MetaCLI
from app.deploy.command import predict
from app.deploy.embed import embed
from app.deploy.learn_command import learn
from app.deploy.predict_learner import predict_learner
from app.errors import InputError, UsageError, cause
from app.runs.processes import is_rank_zero
from app.runs.run import discard_empty_run_dir
from callbacks.checkpoint import Stopped


def main() -> int:
    """Runs the command line and returns the exit status: 1 for an error, 128 + the signal where one stopped the run."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # episodes are drawn in microseconds
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning 2.6 with a newer torch
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # parts with published or frozen weights
    warnings.filterwarnings("ignore", ".*The dirpath has changed.*")  # a test in a folder of its own
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")  # by choice, or because it cannot be
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # of a run that is resumed
    warnings.filterwarnings("ignore", ".*all_gather is deprecated.*")  # Lightning 2.6 with a newer torch
    warnings.filterwarnings("ignore", ".*when logging on epoch level in distributed.*")  # what is logged is the same on all ranks
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the console cannot show ends nothing
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    try:
        if sys.argv[1:2] == ["predict"]:
            asks_learner = any(word.split("=")[0] == "--learner" for word in sys.argv)
            return (predict_learner if asks_learner else predict)(sys.argv[2:])
        if sys.argv[1:2] == ["embed"]:
            return embed(sys.argv[2:])
        if sys.argv[1:2] == ["learn"]:
            return learn(sys.argv[2:])
        MetaCLI(sys.argv[1:])
    except (ValueError, MisconfigurationException) as error:
        wrong = cause(error, InputError, MisconfigurationException, ModuleNotFoundError)  # of a chosen class, a package is absent
        if wrong is None:
            raise
        if is_rank_zero():
            print(f"error: {wrong if isinstance(wrong, UsageError) else ' '.join(str(wrong).split())}", file=sys.stderr)
            discard_empty_run_dir()
        return 2 if isinstance(wrong, UsageError) else 1
    except Stopped as stopped:
        return 128 + stopped.signum
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        gc.unfreeze()  # frozen objects outlive the interpreter, and triton complains of each
    return 0
