"""What follows from a command line without being said, a test for each rule."""

import pytest
import yaml
from helpers.command_line import QUIET, train

from app.command_line import rules
from app.command_line.command import Command, read_command
from app.command_line.section import Section
from app.errors import InputError

MAML = "app.algorithms.optimisation_based.maml.MAML"
VERBS = ("fit", "validate", "test")


@pytest.fixture
def config(tmp_path):
    """Writes a config file and gives its name."""

    def write(name="run.yaml", **sections):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(sections))
        return str(path)

    return write


def options(*args, said=None):
    """All options of the run of these arguments."""
    command = read_command([str(arg) for arg in args], VERBS)
    return rules.merged_options(command, [].append if said is None else said.append).options


def test_no_argument_is_the_first_run_of_the_readme():
    assert rules.first_run(Command()) == rules.first_run(read_command(["--trainer.max_steps=3"], VERBS)) == [str(rules.FIRST_RUN)]
    for args in (["fit"], ["--model", "MAML"], ["--data.shots=3"], ["--config", "x.yaml"]):
        assert str(rules.FIRST_RUN) not in rules.first_run(read_command(args, VERBS))


def test_another_class_replaces_the_whole_section_of_a_config(config):
    path = config(model={"class_path": MAML, "init_args": {"inner_lr": 9.0}}, data={"class_path": "Sinusoid"})
    for args in (["--config", path, "--model", "Reptile"], ["--model=Reptile", f"--config={path}"]):
        said = []
        found = options("fit", *args, said=said)
        assert found["model"] == Section("Reptile") and found["data"].name == "Sinusoid"
        assert said == [f"--model Reptile replaces the model of {path} with all its options"]
    found = options("fit", "--config", path, "--config", config("second.yaml", model={"class_path": "Reptile"}))
    assert found["model"].name == "Reptile" and found["model"].options == {}


def test_the_same_class_keeps_the_options_of_a_config(config):
    path = config(model={"class_path": MAML, "init_args": {"inner_lr": 9.0, "inner_steps": 2}})
    said = []
    found = options("fit", "--config", path, "--model", "MAML", "--model.inner_steps", "3", said=said)
    assert found["model"].options == {"inner_lr": "9.0", "inner_steps": "3"} and not said


def test_a_class_in_a_section_is_replaced_in_the_same_way(config):
    method = {"class_path": "ER", "init_args": {"memory": 50}}
    path = config(model={"class_path": "ContinualLearner", "init_args": {"method": method, "evaluate_every": 2}})
    said = []
    found = options("fit", "--config", path, "--data=SplitMNIST", "--model.method=DERPP", "--model.method.alpha=1", said=said)
    assert found["model"].options == {"method": Section("DERPP", {"alpha": "1"}), "evaluate_every": "2"}
    assert said == [f"--model.method DERPP replaces the method of {path} with all its options"]
    kept = options("fit", "--config", path, "--data=SplitMNIST", "--model.method=ER", "--model.method.glances=2")
    assert kept["model"].options["method"].options == {"memory": "50", "glances": "2"}


def test_what_nothing_names_is_maml_on_glyphs(config):
    found = options("fit", "--data", "Sinusoid")
    assert (found["model"].name, found["data"].name) == ("MAML", "Sinusoid")
    assert options("fit", "--config", config(model={"class_path": MAML}))["data"].name == "Glyphs"
    assert options("fit", "--model.inner_lr=2")["model"] == Section("MAML", {"inner_lr": "2"})


def test_a_stream_brings_its_learner_and_ends_the_run(config):
    found = options("fit", "--data", "SplitMNIST")
    assert found["model"].name == "ContinualLearner" and found["trainer"].options["max_steps"] == "-1"
    assert options("fit", "--data", "SplitMNIST", "--trainer.max_steps", 5)["trainer"].options["max_steps"] == "5"
    path = config(data={"class_path": "datamodules.split_mnist.SplitMNIST"}, trainer={"max_steps": 7})
    assert options("fit", "--config", path)["trainer"].options["max_steps"] == "7"
    assert options("fit", "--data", "Sinusoid")["trainer"].options["max_steps"] == "1000"


def test_only_a_test_keeps_the_task(config):
    path = config(data={"class_path": "FC100", "init_args": {"ways": 7, "shots": 3, "image_size": 32, "data_dir": "pictures"}})
    for verb, data, kept in (
        ("test", "CUB200", {"data_dir": "pictures", "ways": "7"}),
        ("validate", "ImageFolder", {"ways": "7"}),
        ("test", "Sinusoid", {}),
        ("fit", "Omniglot", {}),
    ):
        said = []
        found = options(verb, "--config", path, "--data", data, "--data.shots=1", said=said)
        assert found["data"] == Section(data, {"shots": "1"} | kept)
        but = f" but {', '.join(kept)}" if kept else ""
        assert said == [f"--data {data} replaces the data of {path} with all its options{but}"]


def test_what_follows_from_another_option_is_refused(config):
    for option in ("model.input_shape", "model.init_args.output_size", "data.seed", "data.global_labels", "model.stream"):
        with pytest.raises(InputError, match=f"{option.replace('.init_args', '')} is no option of the command line: it follows"):
            options("fit", f"--{option}=1")
    with pytest.raises(InputError, match=r"--data\.seed is no option"):
        options("fit", "--config", config(data={"class_path": "Glyphs", "init_args": {"seed": 3}}))


def test_loggers_that_insist_on_a_folder_get_the_run(config):
    for args in (["--trainer.logger=CSVLogger"], ["--config", config(trainer={"logger": [{"class_path": "CSVLogger"}]})]):
        logger = options("fit", *args)["trainer"].options["logger"]
        assert (logger[0] if isinstance(logger, list) else logger).options == {"save_dir": "."}
    assert options("fit", "--trainer.logger=false")["trainer"].options["logger"] == "false"


def test_options_go_on_top_of_a_list_of_defaults():
    found = options("fit", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss")
    callbacks = found["trainer"].options["callbacks"]
    assert callbacks[-1] == Section("EarlyStopping", {"monitor": "val/loss"}) and len(callbacks) > 5


def test_files_in_the_place_of_classes(config, tmp_path):
    """Named on the command line, or by a config beside it."""
    file = config("mine.yaml", class_path="Reptile", init_args={"inner_steps": 4})
    trainer = config("short.yaml", max_steps=9)
    found = options("fit", "--model", file, "--model.inner_lr=2", "--trainer", trainer)
    assert found["model"].name == "Reptile" and found["model"].options == {"inner_steps": "4", "inner_lr": "2"}
    assert found["trainer"].options["max_steps"] == "9"
    assert options("fit", "--config", config(model="mine.yaml"))["model"].options == {"inner_steps": "4"}
    with pytest.raises(InputError, match=r"--model .*names no class"):
        options("fit", "--model", trainer)


def test_values_that_a_run_cannot_keep_its_word_with():
    for wrong, words in (({"seed_everything": -1}, "0 to 4294967295"), ({"accumulate_grad_batches": 2}, "exact resuming")):
        with pytest.raises(InputError, match=words):
            rules.check_values({"seed_everything": 0, "trainer": wrong} | wrong)


def test_a_class_starts_from_its_own_defaults(tmp_path):
    arguments = [*QUIET, "--trainer.max_steps=1", "--data.test_episodes=2", f"--trainer.default_root_dir={tmp_path}"]
    assert train("fit", "--model", "Reptile", "--data", "Sinusoid", *arguments).status == 0
    resolved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert resolved["model"]["init_args"]["inner_lr"] == 1e-3
    assert resolved["data"]["init_args"]["queries"] == 100 and resolved["data"]["init_args"]["meta_batch_size"] == 25
