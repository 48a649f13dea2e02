"""Learners that live: what they know after any order of learning, forgetting and merging, and what becomes of their file."""

import pytest
import torch
from helpers.living import predictor

import app
from app.continual.meta_trained.deployment import deployed_heads
from app.deploy.coverage import prediction_sets
from app.deploy.living_learner import LivingLearner
from app.deploy.memories import groups_of
from app.deploy.predictor import Predictor
from app.errors import InputError
from app.learners.kept_sums import KeepsSums
from app.learners.learner import subclasses

SUMS = ["ProtoNet", "FEAT", "MetaBaseline", "PMF", "GeMCL", "R2D2", "MetaOptNet", "NeuralStatistician"]
TASKS = ["CNP", "NP"]


@pytest.fixture(scope="module")
def pictures():
    """Eight pictures of each of five classes, queries, and the names."""
    generator = torch.Generator().manual_seed(0)
    bases = torch.rand(5, 1, 1, 16, 16, generator=generator)
    noisy = (bases + 0.3 * torch.rand(5, 12, 1, 16, 16, generator=generator)).clamp(0, 1)
    x = (noisy * 255).byte()
    return x[:, :8].flatten(0, 1), [f"class {number}" for number in range(5) for _ in range(8)], x[:, 8:].flatten(0, 1)


def told(source: Predictor, x, y, rows, **options) -> LivingLearner:
    learner = source.learner(**options)
    for row in rows:
        learner.learn(x[row : row + 1], [y[row]])
    return learner


def same(one: LivingLearner, other: LivingLearner, queries) -> bool:
    first, second = one.predict(queries), other.predict(queries)
    return first.labels == second.labels and torch.equal(first.probabilities, second.probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*SUMS, "MatchingNet"])
def test_order_forgetting_and_merging_to_the_bit(method, pictures):
    x, y, queries = pictures
    few = [row for row in range(40) if row % 8 < 4]
    x, y = x[few], [y[row] for row in few]
    source = predictor(method)
    whole = source.learner()
    whole.learn(x, y)
    one_by_one = told(source, x, y, torch.randperm(len(y), generator=torch.Generator().manual_seed(1)).tolist())
    assert same(whole, one_by_one, queries)

    halves = [told(source, x, y, range(start, len(y), 2)) for start in (0, 1)]
    halves[0].merge(halves[1])
    assert same(whole, halves[0], queries)

    never = source.learner()
    never.learn(x[4:17], y[4:17])
    whole.forget("class 0")
    whole.forget_examples(x[17:])
    assert whole.classes == never.classes == ["class 1", "class 2", "class 3", "class 4"] and same(whole, never, queries)


@pytest.mark.parametrize("method", SUMS)
def test_sums_say_what_an_adaptation_to_all_says(method, pictures):
    x, y, queries = pictures
    source = predictor(method)
    learner = source.learner()
    learner.learn(x, y)
    expected, found = (one.raw_outputs(queries / 255)[0] for one in (source.adapt(x, y), learner.adapted()))
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_every_algorithm_of_sums_is_tested():
    concrete = {cls.__name__ for cls in subclasses(KeepsSums)}
    assert concrete == {*SUMS, *TASKS}


@pytest.mark.parametrize("method", TASKS)
def test_rows_of_tasks_to_the_bit(method):
    generator = torch.Generator().manual_seed(0)
    x, y, queries = (torch.rand(count, 1, generator=generator) for count in (20, 20, 5))
    source = predictor(method)
    whole, parts, other, never = (source.learner() for _ in range(4))
    whole.learn(x, y, "a")
    for row in reversed(range(12)):
        parts.learn(x[row : row + 1], y[row : row + 1], "a")
    other.learn(x[12:], y[12:], "a")
    other.learn(x[:2], y[:2], "b")
    parts.merge(other)
    never.learn(x[:12], y[:12], "a")
    found, expected = parts.predict(queries, task="a"), whole.predict(queries)
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)
    adapted = source.adapt(x, y).predict(queries)
    assert torch.allclose(found.mean, adapted.mean, atol=1e-5) and torch.allclose(found.std, adapted.std, atol=1e-5)
    parts.forget("b")
    parts.forget_examples(x[12:], y[12:])
    assert torch.equal(parts.predict(queries).mean, never.predict(queries).mean)
    with pytest.raises(InputError, match="it knows no task 'b'; it knows a"):
        parts.predict(queries, task="b")


def test_what_a_memory_keeps(pictures):
    x, y, queries = pictures
    source = predictor("MatchingNet")
    orders = [range(40), reversed(range(40))]
    drawn = [told(source, x, y, order, memory=3, keep="random") for order in orders]
    assert drawn[0].kept.counts == dict.fromkeys(sorted(set(y)), 3) and same(*drawn, queries)
    first = told(source, x, y, range(40), memory=3, keep="first")
    assert torch.equal(first.kept.groups["class 1"].x, x[8:11] / 255)
    nearest = source.learner(memory=3, keep="nearest")
    lesson = nearest.learn(x, y)
    assert lesson.dropped == dict.fromkeys(sorted(set(y)), 5)
    with torch.no_grad():
        features = source.algorithm.net.body(x[:8] / 255).double()  # its norms have running statistics
    distance = (features - features.mean(0)).square().sum(1)
    pixels = (x[:8].double() - x[:8].double().mean(0)).flatten(1).square().sum(1)
    assert set(distance.argsort()[:3].tolist()) != set(pixels.argsort()[:3].tolist())
    assert torch.equal(nearest.kept.groups["class 0"].x, x[distance.argsort()[:3].sort().values] / 255)
    with pytest.raises(InputError, match="'class 0' would have 8 examples, more than the 3"):
        source.learner(memory=3).learn(x, y)


def test_a_file_is_the_learner(tmp_path, pictures):
    x, y, queries = pictures
    for method in ("ProtoNet", "MatchingNet"):
        learner = predictor(method).learner()
        learner.learn(x[:16], y[:16])
        again = learner.learn(x[:1], y[:1]).again
        state = [learner.kept.state(), learner.ledger.state()]
        torch.save(state, tmp_path / "state.pt")
        kept, ledger = torch.load(tmp_path / "state.pt", weights_only=True)
        other = predictor(method).learner()
        other.kept.load(kept)
        other.ledger = type(other.ledger).of_state(ledger)
        assert again == 1 and same(learner, other, queries) and other.ledger.examples == learner.ledger.examples
        other.forget_examples(x[:1])
        assert other.kept.counts["class 0"] == 7  # both of its times


@pytest.mark.parametrize(
    ("do", "wrong"),
    [
        (lambda learner, x, y: learner.forget("class 9"), "class 9: it knows no such class; it knows class 0, class 1"),
        (lambda learner, x, y: learner.forget_examples(x[30:]), "10 of 10 examples were never learned"),
        (lambda learner, x, y: learner.merge(predictor("GeMCL").learner()), "is of GeMCL"),
        (lambda learner, x, y: learner.learn(torch.zeros(1, 2, 16, 16), ["a"]), "give pictures of shape"),
        (lambda learner, x, y: learner.learn(x[:2], ["a"]), "x has 2 rows and y 1"),
        (lambda learner, x, y: learner.learn(x[:1], [3]), "cannot be sorted"),
        (lambda learner, x, y: learner.predictor.learner(memory=3), "keeps sums alone"),
        (lambda learner, x, y: learner.predictor.learner(window=0), "--window is 0; give at least 1"),
        (lambda learner, x, y: learner.predictor.learner(window=3, keep="first"), "leave one of the two out"),
        (lambda learner, x, y: learner.learn(x[:1], y[:1], alarm_rate=5), "--alarm_rate is 5; give a probability"),
        (lambda learner, x, y: learner.predictor.learner().predict(x), "no class"),
        (lambda learner, x, y: app.load_learner("absent.learner"), "does not exist"),
    ],
)
def test_bad_input(do, wrong, pictures):
    x, y, queries = pictures
    learner = predictor("ProtoNet").learner()
    learner.learn(x[:24], y[:24])
    before = learner.predict(queries)
    with pytest.raises(InputError, match=wrong):
        do(learner, x, y)
    assert torch.equal(learner.predict(queries).probabilities, before.probabilities)


def test_a_learned_head_knows_so_many_classes(pictures):
    x, y, _ = pictures
    learner = predictor("MAML").learner()
    learner.learn(x[:24], y[:24])
    with pytest.raises(InputError, match="learned head of 3 classes, and would have to know 4"):
        learner.learn(x[24:25], y[24:25])


@pytest.mark.parametrize("method", ["ProtoNet", "MatchingNet", "OML"])
def test_in_a_window_old_examples_fade(method, pictures):
    """What is left are the last ones of each class, whatever came before; of a memory of sums too."""
    x, y, queries = pictures
    source = predictor(method)
    learner = source.learner(window=3)
    first, rest = [row for row in range(40) if row % 8 < 5], [row for row in range(40) if row % 8 >= 5]
    lesson = learner.learn(x[first], [y[row] for row in first])
    assert lesson.dropped == dict.fromkeys(learner.classes, 2)
    learner.learn(x[rest], [y[row] for row in rest])
    last = source.learner(window=3)
    last.learn(x[rest], [y[row] for row in rest])
    assert learner.kept.counts == dict.fromkeys(learner.classes, 3) and same(learner, last, queries)


@pytest.mark.parametrize("num_outputs", [None, 50])
def test_a_head_that_runs_on(num_outputs, pictures):
    """What was learned in several calls is what one call learns in the same order."""
    x, y, queries = pictures
    source = predictor("OML", num_outputs=num_outputs)
    whole, learner, other = (source.learner() for _ in range(3))
    whole.learn(x, y)
    for start in range(0, 24, 8):
        learner.learn(x[start : start + 8], y[start : start + 8])
    rows = learner.kept.rows(["class 0"]).clone()
    other.kept.load(learner.kept.state())
    for one in (learner, other):
        one.learn(x[24:], y[24:])
    assert same(learner, other, queries) and learner.kept.counts == whole.kept.counts
    assert torch.allclose(learner.kept.rows(learner.classes), whole.kept.rows(whole.classes), atol=1e-6)
    assert not torch.equal(learner.kept.rows(["class 0"]), rows)
    features, labels = whole.kept._encoded(x / 255)[None], torch.tensor([[1 + int(name[-1]) for name in y]])
    fresh, lr = source.algorithm.fresh_heads(features, 1 + (num_outputs or 32), 0), source.algorithm.default_lr
    expected = deployed_heads(features, labels, fresh, torch.tensor([[lr]]))[0, 0, 1:6]
    assert torch.allclose(whole.kept.rows(whole.classes), expected, atol=1e-6)
    with pytest.raises(InputError, match="cannot take back"):
        learner.forget("class 0")
    with pytest.raises(InputError, match="takes in no other one"):
        learner.merge(whole)
    assert source.learner(memory=3, keep="first").kept.kind == "examples"


def test_a_row_that_comes_late_has_unlearned_what_others_have(pictures, monkeypatch):
    x, y, _ = pictures
    monkeypatch.setattr("app.deploy.running_head.ROWS", 1)
    source = predictor("OML")
    kept = source.learner().kept
    encoded = kept._encoded(x[:1] / 255)[None]
    groups = groups_of(source, source.reading, x[:8], y[:8], "")
    kept.learn(groups)
    start, before = kept._start, kept._head
    assert before.weights.shape[2] == 2 and not torch.equal(before.weights[0, 0, 0], start)
    after = kept._grown(encoded, 2)
    drawn = source.algorithm.fresh_heads(encoded, 1, 3)[0, 0]
    assert torch.allclose(after.weights[0, 0, 2], drawn + before.weights[0, 0, 0] - start)
    assert torch.equal(after.weights[:, :, :2], before.weights) and torch.equal(after.second[0, 0, 2], before.second[0, 0, 0])


def test_two_spellings_are_told(pictures):
    x, *_ = pictures
    learner = predictor("ProtoNet").learner()
    learner.learn(x[:2], ["Black Tern", "gull"])
    assert learner.learn(x[2:4], ["black_tern", "gull"]).alike == [("black_tern", "Black Tern")]
    assert learner.classes == ["Black Tern", "black_tern", "gull"]
    assert learner.learn(x[4:6], ["black_tern", "Black Tern"]).alike == []  # it knows both


def test_sets_of_classes(pictures):
    x, y, queries = pictures
    source = predictor("ProtoNet")
    learner = source.learner()
    learner.learn(x, y)
    with pytest.raises(InputError, match="needs at least 9 examples"):
        learner.predict_sets(queries, 0.9)
    source.algorithm.nonconformity = torch.linspace(0, 0.99, 100)  # as the validation of a fit would leave it
    for task, why in (((2, 1), "classes, and the validation tasks of training had 2"), ((20, 99), "tasks of training had 99")):
        source.algorithm.validated_on = task
        learner = source.learner()
        learner.learn(x, y)
        with pytest.raises(InputError, match=why):
            learner.predict_sets(queries, 0.9)
    source.algorithm.validated_on = (20, 1)
    learner = source.learner()
    learner.learn(x, y)
    least = 1 - source.algorithm.nonconformity.double()[90].item()
    found = learner.adapted().raw_outputs(queries / 255)[0]
    expected = [[name for name, share in zip(learner.classes, row, strict=True) if share >= least] for row in found.tolist()]
    assert learner.predict_sets(queries, 0.9) == expected
    with pytest.raises(InputError, match="share between 0 and 1"):
        learner.predict_sets(queries, 1.5)

    adapted = source.adapt(x, y)  # whose own examples say it
    own = adapted.held_out.probabilities.double()[range(40), adapted.held_out.labels]
    sets = prediction_sets(adapted, queries, 0.9)
    least = own.sort().values[3].item()  # the 37th of 40 scores
    raw = adapted.raw_outputs(queries / 255)[0]
    assert [len(one) for one in sets] == (raw >= least).sum(1).tolist()
