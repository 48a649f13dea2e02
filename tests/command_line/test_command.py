"""A command line is read once, into what it is."""

import pytest

from app.command_line.command import read_command
from app.command_line.section import Section
from app.errors import UsageError

VERBS = ("fit", "validate", "test")


def test_verb_configs_and_options_in_their_order():
    args = "fit --model.inner_lr=0.1 --config a.yaml -c b.yaml --trainer.max_steps -1 --config=c --model Reptile --data=Glyphs"
    command = read_command(args.split(), VERBS)
    assert command.verb == "fit" and command.configs == ["a.yaml", "b.yaml", "c"]
    expected = [("model.inner_lr", "0.1"), ("trainer.max_steps", "-1"), ("model", "Reptile"), ("data", "Glyphs")]
    assert command.options == expected and command.names_something


def test_a_class_has_its_options_wherever_they_stand():
    for args in ("--model.inner_lr=1 --model Reptile", "--model=Reptile --model.init_args.inner_lr 1"):
        assert read_command(args.split(), VERBS).layer().options == {"model": Section("Reptile", {"inner_lr": "1"})}
    twice = read_command(["--model", "MAML", "--model.inner_lr=1", "--model", "Reptile"], VERBS)
    assert twice.layer().options == {"model": "Reptile"}  # the last one counts, and starts anew


def test_no_verb_and_nothing_named():
    command = read_command(["--trainer.max_steps=3"], VERBS)
    assert command.verb is None and not command.names_something
    assert read_command(["--data.shots=3"], VERBS).names_something


def test_several_words_and_a_list_that_grows():
    args = "--data.num_context 3 7 --trainer.callbacks+=A --trainer.callbacks.x=1 --trainer.callbacks+ B"
    layer = read_command(args.split(), VERBS).layer().options
    assert layer["data"].options["num_context"] == ["3", "7"]
    assert layer["trainer"].options["callbacks"] == [Section("A", {"x": "1"}), "B"]


def test_a_value_may_look_like_an_option():
    assert read_command(["--data.path=--x", "--data.x", "-5,5", "--data.y="], VERBS).options == [
        ("data.path", "--x"),
        ("data.x", "-5,5"),
        ("data.y", ""),
    ]


def test_help():
    assert read_command(["--help"], VERBS).for_help() == ["--help"]
    args = ["fit", "--trainer.max_steps", "3", "--model", "MAML", "--model.backbone.help", "Conv4"]
    assert read_command(args, VERBS).for_help() == ["fit", "--model=MAML", "--model.backbone.help", "Conv4"]


@pytest.mark.parametrize(
    "args, words",
    [
        ("tset --model MAML", "unknown verb tset"),
        ("--model.first_order --data Glyphs", "--model.first_order has no value"),
        ("fit test", "unexpected test"),
        ("fit --config", "--config has no value"),
    ],
)
def test_no_command_line(args, words):
    with pytest.raises(UsageError, match=words):
        read_command(args.split(), VERBS)
