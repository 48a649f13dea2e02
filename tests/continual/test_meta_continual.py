"""Numbers of continual methods that are meta-learned: their exact derivatives, and what becomes of them."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.command_line import QUIET, ROOT, train
from helpers.meta_streams import Characters
from helpers.small import Blots, SaveAt, relative_error, trainer
from helpers.streams import METHODS, Patterns
from PIL import Image
from torch import Tensor

from app.backbones.conv4 import Conv4
from app.backbones.mlp import MLP
from app.continual.base.method import is_differentiable
from app.continual.learned_numbers import LearnedNumbers
from app.continual.learner import ContinualLearner
from app.continual.meta_learned.course import LR, STEP_SIZE, _draw
from app.continual.meta_learned.hypergradients import without_derivatives
from app.continual.meta_learned.meta_continual import MetaContinual
from app.continual.meta_learned.short_stream import Shape, ShortStream
from app.episode import Episode
from app.errors import InputError

LOOK_AHEAD = {"memory": 6, "replay": 3, "glances": 2, "alpha": 0.1}
SETTINGS = {
    "AGEM": {"memory": 12, "reference": 8},
    "ER": {"memory": 12, "replay_weight": 1.5},
    "DERPP": {"memory": 6, "alpha": 0.4, "beta": 0.7},
    "EWC": {"strength": 3.0},
    "OnlineEWC": {"strength": 3.0, "gamma": 0.9},
    "SI": {"strength": 2.0, "xi": 0.1},
    "LwF": {"strength": 1.0, "temperature": 2.0},
    "LaMAML": {**LOOK_AHEAD, "rate_lr": 0.2},
    "CMAML": LOOK_AHEAD,
    "Sync": {**LOOK_AHEAD, "rate_lr": 0.2},
}
ABLE = [name for name, cls in METHODS.items() if is_differentiable(cls)]
SHAPE = (1, 5, 5)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def method(name: str, lr: float = 0.1, **wanted) -> partial:
    optimizer = {} if name == "LaMAML" else {"optimizer": partial(torch.optim.SGD, lr=lr)}  # its steps are its step sizes
    return partial(METHODS[name], **optimizer | SETTINGS.get(name, {}) | wanted)


def learner(name: str = "ER", learn: tuple[str, ...] = ("lr",), classes: int = 5, seed: int = 0, **wanted) -> MetaContinual:
    torch.manual_seed(seed)
    shape = wanted.pop("input_shape", SHAPE)
    given = {"method": method(name), "backbone": partial(MLP, hidden_sizes=(8,))} | wanted
    return MetaContinual(shape, 10, classes, meta_learn=learn, **given)


def tasks(classes: int = 5, images: int = 10, count: int = 2, shape: tuple[int, ...] = SHAPE) -> Episode:
    """Streams of noisy pictures, class after class, and held-out ones."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(count, classes, 1, *shape, generator=generator)

    def rows(number: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(count, classes, number, *shape, generator=generator)
        return (means + 0.3 * noise).flatten(1, 2), torch.arange(classes).repeat_interleave(number).expand(count, -1)

    return Episode(*rows(images), *rows(4))


DIFFERENCES = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}  # of the fourth order


def slopes_along(directions: dict[str, Tensor], algorithm: MetaContinual, batch: Episode, step: float = 1e-6) -> list[float]:
    """Of the outer loss, each parameter by itself, by finite differences: all streams that these take go side by side."""
    found = []
    for name, parameter in algorithm.named_parameters():
        for size in DIFFERENCES:
            with torch.no_grad():
                parameter += size * step * directions[name]
                found.append([{key: value.clone() for key, value in part.items()} for part in algorithm.outer.values()])
                parameter -= size * step * directions[name]
    count = len(batch.query_x)

    def side_by_side(part: int) -> dict[str, Tensor]:
        stacked = {name: torch.stack([one[part][name] for one in found]) for name in found[0][part]}
        return {name: values.repeat(count, *[1] * (values.ndim - 1)) for name, values in stacked.items()}

    course = algorithm._courses(batch, 0, len(found))
    state = course.after(course.begun(side_by_side(1)), side_by_side(0), course.moves)
    losses, _ = course.losses(state, *(part.repeat_interleave(len(found), 0) for part in (batch.query_x, batch.query_y)))
    means = losses.detach().view(count, len(directions), len(DIFFERENCES)).mean(0)
    return (means @ torch.tensor([*DIFFERENCES.values()]) / step).tolist()


def assert_exact(algorithm: MetaContinual, batch: Episode) -> None:
    """Each number by itself; tensors of many along a random direction."""
    gradient, metrics = algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)
    generator = torch.Generator().manual_seed(1)
    directions = {
        name: torch.randn(own.shape, generator=generator) if own.ndim else torch.ones(()) for name, own in gradient.items()
    }
    for (name, own), slope in zip(gradient.items(), slopes_along(directions, algorithm, batch), strict=True):
        assert float((own * directions[name]).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-12), name
        assert own.abs().max() > 1e-6, name
    assert metrics["outer_loss"].isfinite()


KINDS = {
    ("lr", "replay_weight"): "forward",
    ("lr_per_layer", "replay_weight"): "forward",
    ("lr_per_weight",): "reverse",
    ("initialisation",): "reverse",
    ("initialisation", "lr", "replay_weight"): "reverse",
}


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("learn", KINDS, ids=", ".join)
def test_the_hypergradient_is_exact_through_50_steps_of_replay(learn: tuple[str, ...]):
    algorithm = learner("ER", learn)
    assert algorithm.mode == KINDS[learn]
    assert_exact(algorithm, tasks())


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", ABLE)
def test_the_hypergradient_of_every_method_is_exact(name: str, mode: str):
    numbers = tuple(METHODS[name].meta_parameters)
    assert_exact(learner(name, ("lr", *numbers), classes=3, mode=mode), tasks(classes=3, images=6))


# Through this many steps a unit may switch between two numbers that are close, for one image of a step: the gradient of the
# step has a jump there, and so has the loss after the stream. Differences over such a place are no derivatives.
@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("name", "learn"),
    [
        ("AGEM", ("lr",)),
        ("AGEM", ("initialisation", "lr_per_weight")),
        ("DERPP", ("lr", "alpha", "beta")),
        ("LaMAML", ("lr", "alpha", "rate_lr")),
    ],
)
def test_the_hypergradient_is_exact_through_50_steps(name: str, learn: tuple[str, ...]):
    assert_exact(learner(name, learn, seed=1), tasks())


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", ["LaMAML", "Sync"])
@pytest.mark.parametrize("wanted", [{"closed_form": False}, {"second_order": True}], ids=str)
def test_looking_ahead_by_autograd_and_in_second_order(name: str, mode: str, wanted: dict):
    numbers = tuple(METHODS[name].meta_parameters)
    given = {"method": method(name, **wanted), "batch_size": 2, "mode": mode}
    assert_exact(learner(name, ("lr", *numbers), classes=3, **given), tasks(classes=3, images=4))


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_other_scenarios_of_several_glances_and_passes(scenario: str):
    given = {"scenario": scenario, "classes_per_experience": 2, "batch_size": 3, "passes": 2}
    assert_exact(learner("ER", classes=4, method=method("ER", glances=2), **given), tasks(classes=4, images=6))


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_network_of_convolutions(mode: str):
    net = {"backbone": partial(Conv4, width=4), "input_shape": (1, 16, 16)}
    assert_exact(learner("ER", ("lr",), classes=2, mode=mode, **net), tasks(classes=2, images=3, shape=(1, 16, 16)))


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_streams_at_once_are_those_that_go_alone():
    batch, found = tasks(classes=2, images=3, count=3), []
    for at_once in (None, 1):
        algorithm = learner("DERPP", ("lr", "alpha"), classes=2, tasks_per_chunk=at_once)
        found.append(algorithm.outer_gradient(dict(algorithm.named_parameters()), batch, 5)[0])
    assert relative_error(*found) < 1e-12


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ABLE)
def test_the_steps_are_those_of_an_ordinary_run(name: str):
    batch, algorithm = tasks(classes=3, images=4, count=1), learner(name, classes=3)
    _, logits = without_derivatives(algorithm._courses(batch, 0), algorithm.outer.values(), batch.query_x, batch.query_y)
    stream = ShortStream(batch.support_x[0], batch.support_y[0], algorithm.shape, 0, "train", 0)
    own = algorithm._fresh(stream)
    own.optimizer = own.make_optimizer()
    for step in range(stream.own_num_steps):
        place = stream.place(step)
        if place.first:
            own.begin_experience(place.experience, None)
        own.observe(stream.batch(step), _draw(stream.seed, step))
        if place.last:
            own.end_experience(place.experience, None, stream.samples(place.experience, "train"))
    assert torch.allclose(own.predict(batch.query_x[0]), logits[0], rtol=1e-10, atol=1e-10)


# Runs


def data(**wanted) -> Characters:
    made = Characters(
        **{"ways": 3, "shots": 3, "queries": 2, "meta_batch_size": 2, "val_episodes": 3, "test_episodes": 3} | wanted
    )
    made.prepare_data()
    made.setup()
    return made


def run_of(name: str = "ER", learn: tuple[str, ...] = ("lr", "replay_weight"), lr: float = 0.01, **wanted) -> MetaContinual:
    outer = {"optimizer": partial(torch.optim.Adam, lr=0.3)}
    return learner(name, learn, classes=3, input_shape=(1, 16, 16), method=method(name, lr), **outer | wanted)


@pytest.mark.slow
def test_a_learning_rate_that_is_too_low_is_raised(capsys):
    algorithm, own = run_of(lr=0.001), data()
    run = trainer(8)
    run.validate(algorithm, own, verbose=False)
    before = algorithm.evaluation["scores"]["loss"]["mean"][-1]
    run = trainer(8)
    run.fit(algorithm, own)
    found = algorithm.outer.numbers()
    assert found["lr"] > 0.004 and found["replay_weight"] > 0
    assert f"meta-learned of ER: lr {found['lr']:.4g} (set to 0.001), replay_weight" in capsys.readouterr().out
    run.validate(algorithm, own, verbose=False)
    scores = algorithm.evaluation["scores"]
    assert scores["loss"]["mean"][-1] < before
    assert scores.keys() == {"accuracy", "loss", "accuracy_as_set"}
    run.test(algorithm, own, verbose=False)
    assert algorithm.evaluation["num_episodes"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("learn", [("lr", "replay_weight"), ("initialisation", "lr_per_weight")], ids=", ".join)
def test_a_resumed_run_is_the_whole_one(tmp_path: Path, learn: tuple[str, ...]):
    whole, broken = run_of(learn=learn), run_of(learn=learn)
    trainer(4, callbacks=(SaveAt(2, tmp_path / "two.ckpt"),)).fit(whole, data())
    trainer(4).fit(broken, data(), ckpt_path=tmp_path / "two.ckpt", weights_only=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[name]), name


def facts(algorithm: MetaContinual, classes: tuple[str, ...] = ()) -> dict:
    """What a checkpoint says of it."""
    return {
        **algorithm.learned(),
        "classes": list(classes),
        "parts": {"method": None, "backbone": None},
    }


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("name", "learn"),
    [
        ("ER", ("lr", "replay_weight")),
        ("ER", ("lr_per_layer",)),
        ("ER", ("lr_per_weight", "initialisation")),
        ("LaMAML", ("alpha", "rate_lr")),
    ],
)
def test_a_stream_is_learned_with_what_was_learned(name: str, learn: tuple[str, ...]):
    batch, algorithm = tasks(classes=3, images=4, count=1), learner(name, learn, classes=3)
    with torch.no_grad():
        for number, parameter in enumerate(algorithm.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    _, logits = without_derivatives(algorithm._courses(batch, 0), algorithm.outer.values(), batch.query_x, batch.query_y)
    stream = ShortStream(batch.support_x[0], batch.support_y[0], algorithm.shape, 0, "train", 0)
    torch.default_generator.manual_seed(stream.seed)
    net = algorithm._backbone(SHAPE, 3)
    own = LearnedNumbers(facts(algorithm), "CKPT").method(method(name, 123.0))(net, stream)
    own.optimizer = own.make_optimizer()
    for step in range(stream.own_num_steps):
        own.observe(stream.batch(step), _draw(stream.seed, step))
    assert torch.allclose(own.predict(batch.query_x[0]), logits[0], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_the_command_line(tmp_path: Path):
    shared = [*QUIET, "--trainer.max_steps=2", "--trainer.val_check_interval=2"]
    small = ["--data.num_images=3", "--data.meta_batch_size=2", "--data.val_episodes=2", "--data.val_num_classes=[2]"]
    meta = ["--model.meta_learn=[lr_per_layer,replay_weight,initialisation]", f"--trainer.default_root_dir={tmp_path / 'meta'}"]
    run = train("fit", "--config", str(ROOT / "configs/experiment/glyphs_meta_er.yaml"), *shared, *small, *meta)
    assert run.status == 0, run.err
    assert "meta-learned of ER: replay_weight" in run.out and "--model.meta_learned" in run.out
    path = tmp_path / "meta" / "checkpoints" / "best.ckpt"
    stream = ["--data=ClassStream", "--data.num_classes=2", "--data.train_images=3", "--data.test_images=2", *QUIET]
    use = ["--model.meta_learned", str(path), "--trainer.default_root_dir"]
    run = train("fit", *stream, *use, str(tmp_path / "stream"))
    assert run.status == 0, run.err
    assert "ER as meta-learned: replay_weight" in run.out and "4 tensors of initial weights" in run.out
    checkpoint = torch.load(tmp_path / "stream" / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(checkpoint["optimizer_states"][0]["param_groups"]) == 6
    pictures = tmp_path / "new" / "one more"
    pictures.mkdir(parents=True)
    for number in range(2):
        Image.new("L", (28, 28), 100 * number).save(pictures / f"{number}.png")
    ckpt = str(tmp_path / "stream" / "checkpoints" / "last.ckpt")
    learn = ["--learner", str(tmp_path / "own.learner"), "--ckpt_path", ckpt, "--support", str(pictures.parent)]
    run = train("learn", *learn)
    assert run.status == 0, run.err
    run = train("fit", *stream, *use, str(tmp_path / "again"), "--data.split=train")
    assert run.status == 1 and "was trained on 2 classes of the stream, such as Glyphs" in run.err
    run = train("predict", "--ckpt_path", str(path), "--support", str(pictures.parent), "--query", str(pictures))
    assert run.status == 1 and "is of MetaContinual, which learns from a stream" in run.err


# What cannot be


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"learn": ("lr", "alpha")}, "meta_learn names alpha, which ER does not have; give some of lr, .* replay_weight$"),
        ({"learn": ()}, "meta_learn is empty; give some of lr"),
        ({"learn": ("lr", "lr_per_layer")}, "names the learning rate, or another number, twice"),
        ({"name": "GDumb"}, "--model.method GDumb cannot be differentiated; give one of AGEM, CMAML, DERPP, ER, EWC, .*Sync$"),
        (
            {"method": method("OnlineEWC", gamma=1.0), "learn": ("gamma",)},
            "method.gamma is 1; to be meta-learned it has to be between 0 and 1",
        ),
        ({"method": method("DERPP", alpha=0.0), "learn": ("alpha",)}, "method.alpha is 0; .* above 0"),
        ({"method": partial(METHODS["ER"], optimizer=torch.optim.Adam)}, "optimizer Adam is no plain gradient descent"),
        (
            {"method": partial(METHODS["ER"], optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))},
            "optimizer SGD is no plain gradient descent, .* give SGD with lr and no other option",
        ),
        ({"learn": ("initialisation",), "mode": "forward"}, "mode forward is for single numbers"),
        ({"scenario": "task"}, "classes_per_experience is 1; give at least 2"),
    ],
)
def test_what_cannot_be_learned(wanted: dict, message: str):
    with pytest.raises(InputError, match=message):
        learner(**wanted)


def test_splits_that_share_classes_are_refused():
    with pytest.raises(InputError, match=r"the train and val splits of --data Blots share 40 classes, such as Blots 0; streams"):
        own = Blots(ways=3)
        own.setup()
        run_of().check_data(own)


class Named(Patterns):
    identities = frozenset({"Glyphs a", "Glyphs b"})


def test_what_cannot_be_put_to_work(tmp_path: Path):
    learned = LearnedNumbers(facts(learner(), ("Glyphs a", "Glyphs c")), "CKPT")
    with pytest.raises(
        InputError, match=r"CKPT was trained on 1 classes of the stream, such as Glyphs a; give --data.split test"
    ):
        learned.check(Named(batch_size=1))
    learned.check(Patterns(batch_size=1))
    with pytest.raises(InputError, match=r"numbers with batch_size 1, and --data Patterns has 6; give --data.batch_size 1, or"):
        learned.check(Patterns())
    with pytest.raises(InputError, match=r"numbers with scenario class, and --data Patterns has task; give --data.scenario cl"):
        learned.check(Patterns("task", batch_size=1))
    with pytest.raises(InputError, match=r"--model.method is EWC, and CKPT has learned the numbers of ER; give that one"):
        learned.method(METHODS["EWC"])(MLP(SHAPE, 6), Patterns())
    with pytest.raises(InputError, match=r"meta_learned .*none.ckpt does not exist; give the file of a run of MetaContinual"):
        ContinualLearner(Patterns(), meta_learned=tmp_path / "none.ckpt")
    torch.save({"algorithm": "MAML"}, tmp_path / "maml.ckpt")
    with pytest.raises(InputError, match=r"maml.ckpt is of MAML; give one that `train.py fit --model MetaContinual` wrote"):
        ContinualLearner(Patterns(), meta_learned=tmp_path / "maml.ckpt")
    other = LearnedNumbers(facts(learner(learn=("initialisation",))), "CKPT")
    with pytest.raises(InputError, match=r"CKPT has initial weights of another network: body.1.weight differs"):
        other.method(METHODS["ER"])(MLP(SHAPE, 6), Patterns())
    rates = LearnedNumbers(facts(learner(learn=("lr_per_weight",))), "CKPT")
    with pytest.raises(InputError, match=r"CKPT has step sizes of another network: body.1.weight differs"):
        rates.method(METHODS["ER"])(MLP(SHAPE, 6), Patterns())


def test_the_range_of_a_number_holds_whatever_is_learned():
    algorithm = learner("OnlineEWC", ("gamma", "strength"))
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter += 5.0
    settings = algorithm.outer.values().settings
    assert 0.9 < settings["gamma"] < 1 and settings["strength"] > 3 and settings[LR] == pytest.approx(0.1)
    assert not any(name.startswith(STEP_SIZE) for name in settings)


def test_a_short_stream_has_each_image_once_in_its_experience():
    batch = tasks(classes=3, images=4, count=1)
    stream = ShortStream(batch.support_x[0], batch.support_y[0], Shape("domain", 2, 3, 1), "seed")
    assert [experience.classes for experience in stream.experiences] == [(0, 1), (0,)] and stream.output_size == 2
    found = [stream.batch(step) for step in range(stream.own_num_steps)]
    assert sorted(torch.cat([own.y for own in found]).tolist()) == [0] * 8 + [1] * 4
    seen = torch.cat([own.x for own in found]).flatten(1).sum(1).sort().values
    assert torch.equal(seen, batch.support_x[0].flatten(1).sum(1).sort().values)
