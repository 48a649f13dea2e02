"""Defaults that follow from the data."""

import pytest

from app.command_line import rules
from app.command_line.command import read_command
from app.command_line.section import as_section


def options(line: str) -> tuple[dict, dict, list[str]]:
    """Of the model and of the data, and what is said."""
    said: list[str] = []
    found = rules.merged_options(read_command(line.split(), ["fit"]), said.append).options
    return found["model"].options, found["data"].options, said


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_photographs_take_small_steps_and_few_tasks():
    model, data, said = options("fit --model MAML --data ImageFolder --data.path x")
    assert model == {"inner_lr": "0.05", "inner_steps": "5", "eval_inner_steps": "10"}
    assert (data["meta_batch_size"], data["val_episodes"]) == ("2", "40")
    assert len(said) == 1 and "pictures of 3x84x84 on the CPU" in said[0] and "--model.inner_lr 0.05" in said[0]


def test_photographs_are_drawn_small():
    model, data, said = options("fit --model NeuralStatistician --data ImageFolder --data.path x")
    assert (data["image_size"], model["width"], model["context_size"]) == ("28", "16", "64")
    assert "pictures of 3x28x28" in said[0] and data["meta_batch_size"] != "2"
    given = options("fit --model NeuralStatistician --data ImageFolder --data.path x --data.image_size 64")
    assert given[1]["image_size"] == "64" and "pictures of 3x64x64" in given[2][0]
    assert "image_size" not in options("fit --model NeuralStatistician --data Omniglot")[1]


def test_cavia_sees_many_small_photographs_and_takes_small_steps():
    model, data, _ = options("fit --model CAVIA --data ImageFolder --data.path x")
    assert (model["inner_lr"], data["image_size"], data["meta_batch_size"]) == ("0.1", "28", "16")


def test_on_tables_steps_that_lower_no_loss_are_shortened():
    model, _, said = options("fit --model MAML --data CsvRegression --data.path x")
    assert model == {"inner_lr": "0.1", "inner_steps": "10", "backtracks": "true"} and "--model.backtracks true" in said[0]


@pytest.mark.parametrize(
    "line",
    [
        "fit --model MAML --data Omniglot",
        "fit --model MAML --data ImageFolder --data.path x --data.image_size 28 --data.channels 1",
        "fit --config configs/experiment/caltech101_maml_5w5s.yaml",
        "fit --config configs/experiment/glyphs_stream_er.yaml",
    ],
)
def test_characters_and_configs_keep_what_they_have(line):
    assert options(line)[2] == []


def test_what_is_given_counts():
    model, data, _ = options("fit --model MAML --data CUB200 --model.inner_lr 0.2 --data.meta_batch_size 7 --data.shots 5")
    assert (model["inner_lr"], model["inner_steps"], data["meta_batch_size"]) == ("0.2", "5", "7")


def test_every_device_has_a_task():
    assert options("fit --model ProtoNet --data CUB200 --trainer.devices 3")[1]["meta_batch_size"] == "3"


def test_replay_on_a_stream_of_few_pictures():
    model, _, said = options("fit --data ClassStream --model.method ER --model.method.glances 2")
    method = model["method"].options
    assert method["glances"] == "2" and method["replay"] == "10" and as_section(method["optimizer"]).short == "Adam"
    assert "a stream of few pictures" in said[0]
    method = options("fit --data ClassStream --model.method DERPP")[0]["method"].options
    assert method["beta"] == method["replay"]  # each sample weighs the same
    assert options("fit --data SplitMNIST --model.method ER")[2] == []
    model, _, said = options("fit --data ClassStream --model.method LaMAML")
    assert as_section(model["backbone"]).short == "Conv4" and "--model.backbone Conv4" in said[0]
    folder = "fit --data ClassStream --data.source image_folder --data.path x --model.method"
    assert options(f"{folder} LaMAML")[1]["image_size"] == "28" and "image_size" not in options(f"{folder} ER")[1]
    assert "MLP" in str(options("fit --data ClassStream --model.method LaMAML --model.backbone MLP")[0]["backbone"])


def test_a_stream_of_glyphs_has_as_many_pictures_as_there_are_faces():
    data = options("fit --data ClassStream --data.train_images 6")[1]
    assert (data["train_images"], data["test_images"], data["num_classes"]) == ("6", "4", "50")
    assert "num_classes" not in options("fit --data ClassStream --data.source omniglot")[1]
