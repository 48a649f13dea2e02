"""The command line: Lightning's verbs over our algorithms and data sets."""

import gc
import signal
import sys
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import app.algorithms
import app.continual.meta_learned
import app.continual.meta_trained
import app.continual.methods  # noqa: F401
import callbacks  # noqa: F401
import datamodules  # noqa: F401
from app.command_line.checked import options_of_run
from app.command_line.classes import has_global_labels
from app.command_line.command import read_command
from app.command_line.devices import devices
from app.command_line.loggers import settle_loggers
from app.command_line.needed_callbacks import check_monitors, merged, needed_callbacks, wanted
from app.command_line.parser import MetaParser
from app.command_line.rules import TASK, shown_defaults
from app.command_line.summary import print_summary
from app.errors import InputError
from app.jsonargparse_internals import parsed
from app.learners.initial_weights import begin_elsewhere
from app.learners.learner import Learner
from app.learners.suitability import check_suits
from app.pretrained.restored import weights_of_checkpoint
from app.runs.commands import resume
from app.runs.metrics_file import MetricsFile
from app.runs.processes import is_rank_zero
from app.runs.run import check_data, check_encoder, check_fits, checkpoint_dir, prepare_as_checkpoint
from app.runs.same_training import check_same_training
from app.runs.session import Session
from app.runs.steady_logger import steady
from callbacks.checkpoint import Stopped
from callbacks.checkpoint_files import BackgroundCheckpointIO
from callbacks.inner_precision import refuse_float16
from callbacks.rank_watch import RankWatch
from callbacks.run_identity import RunIdentity
from datamodules.base.resumable import ResumableDataModule

VERBS = ("fit", "validate", "test")


class MetaCLI(LightningCLI):
    """`fit`, `validate` and `test`; without a verb `fit`, then `test` of the best checkpoint. `predict` is `app.deploy`'s.

    Args:
        args: the command line without the program's name.
    """

    def __init__(self, args: list[str]):
        self.command = read_command(args, VERBS)
        self.then_test = self.command.verb is None
        super().__init__(
            Learner,
            ResumableDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_kwargs={"description": "Meta-learning: without a verb, fit and then test; predict: see predict --help."},
            args=args,
        )

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """What the command goes on from, or tests."""
        return self.session.checkpoint

    def subcommands(self) -> dict[str, set[str]]:
        """The verbs that have a parser: all for a help text, else the one that is asked for, since building one takes long."""
        verbs = VERBS if self.command.help else (self.command.verb or "fit",)
        return {verb: LightningCLI.subcommands()[verb] | {"weights_only", "verbose"} for verb in verbs}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = MetaParser(**kwargs)
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file of options.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults(shown_defaults())
        for name in TASK:
            linked = partial(self._linked, name)
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", compute_fn=linked, apply_on="instantiate")
        # The learner alone knows what it is trained on. Data sets without classes have no such argument.
        parser.link_arguments("model.class_path", "data.init_args.global_labels", compute_fn=has_global_labels)
        parser.link_arguments("data", "model.init_args.stream", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def _linked(self, name: str, value: Any) -> Any:
        """What the model is told of the data; a head for all training classes has the checkpoint's, whatever it is tested on."""
        for_all_classes = name == "train_output_size" and has_global_labels(self._get(self.config, "model").class_path)
        return self.checkpoint.get("task", {}).get(name, value) if for_all_classes and self.subcommand != "fit" else value

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        verb = self.command.verb or "fit"
        if self.command.help:
            parser.parse_args(self.command.for_help())
        of_verb = self._parser(verb)  # the parser above it would check everything once more
        self.config = Namespace({"subcommand": verb, verb: parsed(of_verb, options_of_run(self.command, of_verb))})
        if self.command.prints_config:
            print(of_verb.dump(self.config[verb], skip_unset=False), end="")
            raise SystemExit(0)

    def _parse_ckpt_path(self) -> None:
        """The config says what the model is; the checkpoint is checked against it."""

    # What the run is, before anything is built

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        learner, data = (resolve_name(config[key].class_path) for key in ("model", "data"))
        check_suits(learner, data)
        names, trainer = (learner.__name__, data.__name__), config.trainer
        self.session = Session(self.subcommand, config.ckpt_path, trainer.default_root_dir, names, trainer.num_nodes)
        trainer.default_root_dir = str(self.session.folder)
        if self.checkpoint:
            config.ckpt_path = str(self.session.ckpt_path)
            if self.subcommand != "fit":
                prepare_as_checkpoint(config.data, self.checkpoint, self.session.ckpt_path)
        self.config_dump = {}  # Lightning's hyperparameters, which nothing here saves: writing them down takes long
        settle_loggers(config.trainer.logger, config.trainer.default_root_dir, self.session.run_id)
        refuse_float16(config.trainer.precision)

    def instantiate_classes(self) -> None:
        with weights_of_checkpoint(self.checkpoint is not None):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        run_dir, chosen = Path(config.default_root_dir), wanted(config)
        config_file = self._config_file()
        self.resolved = yaml.safe_load(config_file)
        identity = RunIdentity(self.session.run_id, self.resolved, config_file, self.session.parent_id)
        needed = needed_callbacks(self.model, self.datamodule, run_dir, identity)
        config.callbacks = merged(needed, chosen)
        plugins = config.plugins or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), BackgroundCheckpointIO()]
        kwargs |= devices(config, self.model.block_size, self.datamodule)
        try:
            trainer = super().instantiate_trainer(plugins=plugins, enable_checkpointing=True, **kwargs)
        except (ImportError, RuntimeError, TypeError, ValueError, MisconfigurationException) as error:
            raise InputError(f"--trainer: {error}") from error
        on = [logger for logger in trainer.loggers if not getattr(logger, "is_off", False)]
        trainer.loggers = list(map(steady, [*on, MetricsFile(run_dir, continues=self.checkpoint is not None)]))
        return trainer

    # The verbs

    def before_fit(self) -> None:
        self._check()
        limits = (limit for limit in (self.trainer.max_steps, self.datamodule.num_steps) if limit and limit > 0)
        end = min(limits, default=None)
        if self.checkpoint and end is not None and end <= self.checkpoint["global_step"]:
            print(f"this run is finished: {self.checkpoint['global_step']} of {end} steps are done")
            raise SystemExit(0)
        begin_elsewhere(self.model, self.checkpoint)
        if is_rank_zero():
            self.session.begin()

    def before_validate(self) -> None:
        self.datamodule.used_splits = ("val",)
        self._check()

    def before_test(self) -> None:
        self.datamodule.used_splits = ("test",)
        self._check()

    def after_fit(self) -> None:
        best, last = (checkpoint_dir(self.trainer.default_root_dir) / f"{name}.ckpt" for name in ("best", "last"))
        if not self.then_test:
            self.after_test()
        else:
            best = self.trainer.strategy.broadcast(best if best.exists() else None)
            if best is None and self.trainer.is_global_zero:
                print("no validation took place: the last checkpoint is tested")
            last = self.trainer.strategy.broadcast(last)
            self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=str(best or last), verbose=False, weights_only=True
            )
            self.after_test()

    def after_test(self) -> None:
        if self.trainer.is_global_zero:
            print_summary(self.trainer)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except Stopped as stopped:
            if self.trainer.is_global_zero:
                name, run_dir = signal.Signals(stopped.signum).name, Path(self.trainer.default_root_dir)
                said = f"\nstopped by {name} after step {self.trainer.global_step}; go on with\n  {resume(run_dir)}"
                print(said, file=sys.stderr)
            raise
        finally:
            for callback in self.trainer.callbacks:
                if isinstance(callback, RankWatch):
                    callback.close()
            self.session.end()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        kwargs["weights_only"] = True
        return kwargs | ({"verbose": False} if subcommand == "test" else {})

    def _check(self) -> None:
        """Finds what is wrong before processes are started and anything is written."""
        if is_rank_zero():
            self.datamodule.prepare_data()
            self.datamodule.setup()
            self.datamodule.check()
            self.model.check_data(self.datamodule)
        self.model.configure_optimizers()
        world_size = self.trainer.num_devices * self.trainer.num_nodes
        self.datamodule.check_processes(world_size, self.model.block_size)
        if self.checkpoint:
            path = Path(self._get(self.config, "ckpt_path"))
            if is_rank_zero():
                check_encoder(self.checkpoint, path, self.datamodule)
            check_fits(self.checkpoint, path, self.model)
            if self.subcommand == "fit" and is_rank_zero():
                check_data(self.checkpoint, path, self.datamodule)
                check_same_training(self.checkpoint["config"], self.resolved, str(path))
        if is_rank_zero():
            check_monitors(self.trainer.callbacks, self.model, self.datamodule)
            self.session.make_folder()
        # A full collection walks the libraries' objects for up to a second, again and again: they are here to stay.
        gc.collect()
        gc.freeze()

    def _config_file(self) -> str:
        """The text of the run's config.yaml, which serves `test` and `fit --ckpt_path last` alike."""
        config = self.config[self.subcommand].clone()
        config.ckpt_path = None
        return self._parser(self.subcommand).dump(config, skip_unset=False, skip_validation=True)
