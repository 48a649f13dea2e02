"""Several streams at once: each is the one that goes alone, with the same draws."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, Outcome, train
from helpers.small import in_turn, trainer
from helpers.streams import METHODS, OF_NUMBERS, SMALLER, Patterns, method_for, stream_of
from torch import Tensor

from app.continual.base.method import goes_abreast
from app.continual.learner import ContinualLearner
from app.continual.method_stack import MethodStack
from app.errors import InputError

SCENARIOS = ("class", "task", "domain")
ABREAST = [name for name, cls in METHODS.items() if goes_abreast(cls)]
NUM_STREAMS = 3
OPTIMIZERS = {"Adam": partial(torch.optim.Adam, lr=0.01), "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.5)}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Uneven(Patterns):
    """Experiences of another length in each stream."""

    def num_train(self, number: int) -> int:
        return self.sizes["train"] + 3 * ((self.seed + self.replica + number) % 2)

    def read(self, number, split):
        kept, self.sizes = self.sizes, self.sizes | {"train": self.num_train(number)}
        found = super().read(number, split)
        self.sizes = kept
        return found


def build(name: str, seed: int, stream: Patterns, **wanted):
    method = method_for(name, stream, **SMALLER.get(name, {}) | wanted)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    for own in ("teacher", "initial"):
        if hasattr(method, own):
            getattr(method, own).load_state_dict(method.net.state_dict())
    return method


def go_on(stack: MethodStack, cursor: int = 0, end: int = 10**6) -> dict[int, list[Tensor]]:
    """What each stream gives, step by step; with one stream it is the method's own calls."""
    method, streams, found = stack.method, stack.streams, {}
    for step in range(cursor, min(end, max(one.own_num_steps for one in streams))):
        running = {number: one for number, one in enumerate(streams) if step < one.own_num_steps}
        places = {number: one.place(step) for number, one in running.items()}
        ends = {n: (place.experience, streams[n].samples(place.experience, "train")) for n, place in places.items() if place.last}

        def begin(numbers, number):
            method.begin_experience(number, None)

        def observe(numbers, batch, step=step):
            draws = [torch.Generator().manual_seed(1000 * (streams[n].seed + streams[n].replica) + step) for n in numbers]
            answers = method.predict(batch.x, batch.task if method.masked else None)
            return method.observe(batch, draws if len(stack) > 1 else draws[0]).detach().clone(), answers

        def finish(numbers, number, samples):
            method.end_experience(number, None, samples)

        def asked(numbers, x, task):
            return method.predict(x, task if method.masked else None)

        stack.run(begin, {number: (place.experience,) for number, place in places.items() if place.first})
        outputs = {
            number: list(out) for number, out in stack.run(observe, {n: (running[n].batch(step),) for n in running}).items()
        }
        stack.run(finish, ends)
        method.eval()
        for number, out in stack.run(asked, {n: (running[n].batch(0).x, running[n].batch(0).task) for n in ends}).items():
            outputs[number].append(out)
        method.train()
        for number, out in outputs.items():
            found.setdefault(number, []).extend(out)
    return found


def stack_of(name: str, cls: type, scenario: str, numbers: range, **wanted) -> MethodStack:
    whole = cls(scenario)
    streams = [whole.beside(NUM_STREAMS)[number] for number in numbers]
    stack = MethodStack([build(name, number, stream, **wanted) for number, stream in zip(numbers, streams, strict=True)], streams)
    stack.method.optimizer = stack.method.make_optimizer()
    return stack


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected.double(), rtol=1e-12, atol=1e-12, equal_nan=True)


def assert_as_alone(name: str, scenario: str, cls: type, **wanted) -> None:
    stack = stack_of(name, cls, scenario, range(NUM_STREAMS), **wanted)
    found, state = go_on(stack), stack.method.state_dict()
    for number in range(NUM_STREAMS):
        alone = stack_of(name, cls, scenario, range(number, number + 1), **wanted)
        (expected,) = go_on(alone).values()
        assert len(found[number]) == len(expected)
        for at, (one, other) in enumerate(zip(found[number], expected, strict=True)):
            assert close(one, other), (number, at)
        for key, tensor in alone.method.state_dict().items():
            assert close(state[key][number], tensor), (number, key)


@pytest.mark.parametrize("cls", [Patterns, Uneven])
@pytest.mark.parametrize(("name", "scenario"), in_turn(ABREAST, SCENARIOS))
def test_streams_at_once_are_those_that_go_alone(name: str, scenario: str, cls: type):
    assert_as_alone(name, scenario, cls)


@pytest.mark.parametrize("name", [name for name, cls in OF_NUMBERS.items() if goes_abreast(cls)])
def test_streams_of_numbers_at_once_are_those_that_go_alone(name: str):
    assert_as_alone(name, "numbers", stream_of)


@pytest.mark.parametrize("name", [*OPTIMIZERS])
def test_each_stream_has_an_optimiser_of_its_own(name: str):
    assert_as_alone("ER", "class", Uneven, optimizer=OPTIMIZERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LaMAML", "MER"])
def test_without_the_closed_form(name: str):
    wanted = {"second_order": True} if name == "LaMAML" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.continual.methods.mer.MLP", type(None))
        assert_as_alone(name, "class", Patterns, **wanted)


# The learner


def learned(name: str, num_streams: int, seed: int = 0, cls: type = Uneven, **options) -> ContinualLearner:
    """A run, as the command line makes it."""
    torch.manual_seed(seed)
    stream = cls(seed=seed)
    learner = ContinualLearner(stream, partial(METHODS[name], **SMALL[name]), num_streams=num_streams, **options)
    trainer(max_steps=-1).fit(learner, datamodule=stream)
    return learner


SMALL = {"ER": {"memory": 9}, "GDumb": {"memory": 9, "epochs": 2}}


@pytest.mark.parametrize("name", [*SMALL])
def test_a_run_of_several_streams_scores_each_as_alone(name: str):
    together = learned(name, NUM_STREAMS, anytime_every=4)
    assert len({one["cost"]["samples"] for one in together.evaluations}) > 1  # they end at different steps
    for number, found in enumerate(together.evaluations):
        alone = learned(name, 1, number, anytime_every=4)
        expected = alone.evaluation
        for view in ("class", "task"):
            assert np.array_equal(found["views"][view]["R"], expected["views"][view]["R"])
            assert np.array_equal(found["views"][view]["before"], expected["views"][view]["before"])
            assert found["views"][view]["metrics"] == expected["views"][view]["metrics"]
        assert found["prequential_of"] == expected["prequential_of"]
        costs = ({key: value for key, value in one["cost"].items() if key != "seconds"} for one in (found, expected))
        assert next(costs) == next(costs)
        for key, tensor in alone.method.state_dict().items():
            assert close(together.method.state_dict()[key][number], tensor), key


def test_a_method_that_cannot_says_so():
    class Own(METHODS["ER"]):
        """Made of one that can."""

    for method in (METHODS["FTML"], Own):
        with pytest.raises(InputError, match=rf"num_streams is 2, and {method.__name__} goes through one .* AGEM, .*SI, Sync$"):
            ContinualLearner(Patterns(), method, num_streams=2)


def test_an_optimiser_that_couples_weights_is_refused():
    learner = ContinualLearner(Patterns(), lambda net, data: METHODS["ER"](net, data, optimizer=torch.optim.LBFGS), num_streams=2)
    with pytest.raises(InputError, match="num_streams is 2, and LBFGS lets"):
        learner.configure_optimizers()


def test_several_processes_are_refused():
    learner = ContinualLearner(Patterns(), num_streams=2)
    learner._trainer = SimpleNamespace(world_size=2, global_rank=0)
    with pytest.raises(InputError, match="num_streams is 2, which are learned in one process, and there are 2"):
        learner.setup("fit")


# The command line

RUN = [*QUIET, "--model=ContinualLearner", "--data=helpers.streams.Patterns", "--model.method=ER", "--model.method.memory=9"]


def fit(folder: Path, *args: str) -> Outcome:
    saving = ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_steps=1"]
    return train("fit", *RUN, *saving, "--model.method.optimizer=Adam", f"--trainer.default_root_dir={folder}", *args)


def state(folder: Path) -> dict:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
    return checkpoint["state_dict"] | dict(enumerate(checkpoint["optimizer_states"][0]["state"][0].values()))


@pytest.mark.slow
def test_the_command_line(tmp_path):
    torch.set_default_dtype(torch.float32)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run = fit(whole, "--model.num_streams=3")
    assert run.status == 0, run.err
    assert "mean of 3 streams" in run.out
    results = json.loads((whole / "results.json").read_text())
    accuracy = results["views"]["class"]["ACC"]
    assert results["streams"] == 3 and accuracy["mean"] == pytest.approx(sum(accuracy["of_streams"]) / 3)
    assert len({one["hash"] for one in json.loads((whole / "stream.json").read_text())["others"]}) == 2
    alone = fit(tmp_path / "alone", "--seed_everything=2")
    assert alone.status == 0, alone.err
    assert (
        json.loads((tmp_path / "alone" / "results.json").read_text())["views"]["class"]["ACC"]["mean"]
        == accuracy["of_streams"][2]
    )
    for key, tensor in state(tmp_path / "alone").items():
        if isinstance(key, str) and key.startswith("method"):
            assert torch.allclose(state(whole)[key][2].double(), tensor.double(), atol=1e-4), key
    assert fit(broken, "--model.num_streams=3", "--trainer.max_steps=7").status == 0
    assert fit(broken, "--model.num_streams=3", "--ckpt_path=last").status == 0
    for key, tensor in state(whole).items():
        assert torch.equal(torch.as_tensor(state(broken)[key]).nan_to_num(-1), torch.as_tensor(tensor).nan_to_num(-1)), key
    tested = train("test", "--config", str(whole / "config.yaml"), "--ckpt_path=last", *QUIET)
    assert tested.status == 0 and "mean of 3 streams" in tested.out, tested.err
    other = fit(broken, "--model.num_streams=2", "--ckpt_path=last")
    assert other.status == 1 and "num_gradients is (3,) there, (2,) in --model" in other.err
    asked = train("predict", f"--ckpt_path={whole / 'checkpoints' / 'last.ckpt'}", f"--support={tmp_path}", f"--query={tmp_path}")
    assert asked.status == 1 and "holds 3 learners, one of each stream; train one with --model.num_streams 1" in asked.err
