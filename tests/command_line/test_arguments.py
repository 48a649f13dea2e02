"""What becomes of the command line before it is parsed."""

import yaml
from helpers.command_line import QUIET, train

from app.command_line.arguments import FIRST_RUN, with_defaults

VERBS = {"fit", "validate", "test"}


def test_no_argument_is_the_first_run_of_the_readme():
    assert with_defaults([], VERBS) == (True, ["fit", "--config", str(FIRST_RUN)])


def test_no_verb_is_fit_and_then_test():
    assert with_defaults(["--model", "MAML", "--data", "Sinusoid"], VERBS) == (
        True,
        ["fit", "--model", "MAML", "--data", "Sinusoid"],
    )
    assert with_defaults(["--trainer.max_steps=3"], VERBS) == (
        True,
        ["fit", "--config", str(FIRST_RUN), "--trainer.max_steps=3"],
    )


def test_a_verb_is_kept():
    args = ["test", "--model", "MAML", "--data", "Sinusoid", "--ckpt_path", "last"]
    assert with_defaults(args, VERBS) == (False, args)
    assert with_defaults(["--help"], VERBS) == (False, ["--help"])


def _config(tmp_path, **sections):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(sections))
    return str(path)


def test_another_class_replaces_the_whole_section_of_a_config(tmp_path, capsys):
    model = {"class_path": "app.algorithms.optimisation_based.maml.MAML", "init_args": {"inner_lr": 9.0}}
    data = {"class_path": "datamodules.sinusoid.Sinusoid"}
    path = _config(tmp_path, model=model, data=data)
    for args in (["fit", "--config", path, "--model", "Reptile"], ["fit", f"--config={path}", "--model=Reptile"]):
        _, rewritten = with_defaults(args, VERBS)
        assert yaml.safe_load(rewritten[rewritten.index("--config") + 1]) == {"data": data}
        assert rewritten[-2:] == ["--model", "Reptile"]
        assert "--model Reptile replaces the model" in capsys.readouterr().err


def test_the_same_class_keeps_the_options_of_a_config(tmp_path):
    path = _config(tmp_path, model={"class_path": "app.algorithms.optimisation_based.maml.MAML", "init_args": {"inner_lr": 9.0}})
    args = ["fit", "--data", "Sinusoid", "--config", path, "--model", "MAML"]
    assert with_defaults(args, VERBS) == (False, args)


def test_what_nothing_names_is_maml_on_glyphs(tmp_path):
    assert with_defaults(["fit", "--data", "Sinusoid"], VERBS) == (False, ["fit", "--model", "MAML", "--data", "Sinusoid"])
    path = _config(tmp_path, model={"class_path": "app.algorithms.optimisation_based.maml.MAML"})
    assert with_defaults(["fit", "--config", path], VERBS) == (False, ["fit", "--data", "Glyphs", "--config", path])


def test_a_class_starts_from_its_own_defaults(tmp_path):
    options = [*QUIET, "--trainer.max_steps=1", "--data.test_episodes=2", f"--trainer.default_root_dir={tmp_path}"]
    assert train("fit", "--model", "Reptile", "--data", "Sinusoid", *options).status == 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"]["init_args"]["inner_lr"] == 1e-3
    assert config["data"]["init_args"]["queries"] == 100 and config["data"]["init_args"]["meta_batch_size"] == 25


def test_a_class_comes_before_its_options(tmp_path):
    args = ["fit", "--model.inner_lr=1", "--trainer.max_steps=3", "--model", "Reptile", "--data=Sinusoid"]
    assert with_defaults(args, VERBS) == (
        False,
        ["fit", "--model", "Reptile", "--model.inner_lr=1", "--trainer.max_steps=3", "--data", "Sinusoid"],
    )
    path = _config(tmp_path, model={"class_path": "MAML"}, seed_everything=3)
    args = ["fit", "--model.inner_lr=1", "--config", path, "--model=Reptile", "--data=Sinusoid"]
    _, rewritten = with_defaults(args, VERBS)
    assert rewritten[:4] == ["fit", "--model", "Reptile", "--model.inner_lr=1"]
    assert yaml.safe_load(rewritten[rewritten.index("--config") + 1]) == {"seed_everything": 3}
