"""A method adapted to examples from outside: the same predictions, any classes, and a program that needs none of this."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.small import METHODS, NETWORKS, Blots, method_for, random_tasks, small_run, take, task_of
from PIL import Image
from torch.testing import assert_close

from app.backbones.task_batch_norm import TaskBatchNorm
from app.deploy.adapted import OTHER
from app.deploy.inputs import Columns, Pictures
from app.deploy.predictor import Predictor
from app.errors import InputError
from datamodules.base.augmentation import PaddedCrop
from datamodules.base.counter import streams
from datamodules.sinusoid import Sinusoid

each_method = pytest.mark.parametrize("method", METHODS)


def predictor_of(method, task=None, **options):
    """An untrained method as a checkpoint would give it, and an episode."""
    algorithm, data = small_run(method, task or task_of(method), **options)
    images = isinstance(data, Blots)
    reading = Pictures(data.input_shape) if images else Columns.numbered(data.input_shape, data.output_size)
    return Predictor(algorithm.eval(), reading), data.episode("test", 0)


@pytest.mark.slow
@each_method
def test_equals_the_method_itself(method):
    predictor, episode = predictor_of(method)
    algorithm, params = predictor.algorithm, dict(predictor.algorithm.named_parameters())
    expected = algorithm.predict(params, algorithm.adapt(params, episode.support_x, episode.support_y), episode.query_x)
    if algorithm.task_type == "regression":
        found = predictor.adapt(episode.support_x, episode.support_y).predict(episode.query_x)
        assert_close(found.mean, expected[:, :1].detach())
        if found.std is not None:
            low, high = found.interval()
            assert_close(high - low, 2 * 1.96 * expected[:, 1:].detach())
        return
    names = np.array(["ant", "bee", "cow"])
    adapted = predictor.adapt(episode.support_x, names[episode.support_y])
    found = adapted.predict(episode.query_x)
    assert adapted.classes == names.tolist() and found.labels == names[expected.argmax(-1)].tolist()
    assert_close(found.probabilities.sum(-1), torch.ones(len(episode.query_x)))
    if method != "RelationNet":
        plain = expected.float().softmax(-1).detach()
        assert_close(adapted.raw_outputs(episode.query_x)[0], plain)
        assert_close(found.probabilities, (plain.log() / adapted.temperature).softmax(-1))


@pytest.mark.slow
@each_method
def test_other_numbers_of_classes_and_uneven_shots(method):
    if task_of(method) == "regression":
        pytest.skip("no classes")
    predictor, _ = predictor_of(method)
    tasks = random_tasks(1, ways=5)
    support_x, support_y, query_x, _ = (part.sigmoid() if part.is_floating_point() else part for part in take(tasks, 0))
    support_x, support_y = support_x[:-1], support_y[:-1]
    if not predictor.algorithm.any_ways:
        with pytest.raises(InputError, match="a learned head of 3 classes, and the support set has 5"):
            predictor.adapt(support_x, support_y)
        return
    found = predictor.adapt(support_x, support_y).predict(query_x)
    assert found.probabilities.shape == (len(query_x), 5) and set(found.labels) <= set(range(5))
    assert predictor.algorithm.output_size == 3  # as it was: the next support set may be of another size
    two = predictor.adapt(support_x[:3], support_y[:3]).predict(query_x)
    assert two.probabilities.shape == (len(query_x), 2)


def test_a_query_depends_on_the_others_of_a_transductive_method_alone():
    for transductive in (True, False):
        predictor, episode = predictor_of("MAML", transductive=transductive)
        adapted = predictor.adapt(episode.support_x, episode.support_y)
        together, alone = adapted.predict(episode.query_x).probabilities[:2], adapted.predict(episode.query_x[:2]).probabilities
        assert (together - alone).abs().max() > 1e-3 if transductive else (together - alone).abs().max() < 1e-5


def test_many_queries(monkeypatch):
    """In pieces, where that changes nothing."""
    predictor, episode = predictor_of("ProtoNet")
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    whole = adapted.predict(episode.query_x).probabilities
    monkeypatch.setattr("app.deploy.adapted.ROWS", 4)
    assert_close(adapted.predict(episode.query_x).probabilities, whole)


def test_threshold():
    predictor, episode = predictor_of("ProtoNet")
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    sure = adapted.predict(episode.query_x)
    threshold = sure.probabilities.amax(-1).median().item()
    found = adapted.predict(episode.query_x, threshold)
    expected = [label if row.max() >= threshold else OTHER for label, row in zip(sure.labels, sure.probabilities, strict=True)]
    assert found.labels == expected and OTHER in found.labels and set(found.labels) != {OTHER}
    with pytest.raises(InputError, match="threshold is 2"):
        adapted.predict(episode.query_x, 2)
    named = predictor.adapt(episode.support_x, [OTHER, "b", "c"] * 2)
    with pytest.raises(InputError, match="a class 'other'"):
        named.predict(episode.query_x, threshold)


def test_labels_of_any_kind():
    """Equal ones are one class, however each was kept."""
    predictor, episode = predictor_of("ProtoNet")
    expected = predictor.adapt(episode.support_x, episode.support_y).predict(episode.query_x)
    for labels in (list(episode.support_y), list(episode.support_y.numpy()), episode.support_y.tolist()):
        found = predictor.adapt(episode.support_x, labels).predict(episode.query_x)
        assert found.labels == expected.labels and torch.equal(found.probabilities, expected.probabilities)


def test_pixels_and_files_are_the_same(tmp_path):
    predictor, episode = predictor_of("ProtoNet")
    pixels = (255 * episode.support_x).round().to(torch.uint8)
    paths = []
    for number, image in enumerate(pixels.numpy()):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image[0]).save(paths[-1])
    of_floats, of_bytes, of_files = (
        predictor.adapt(support, episode.support_y).predict(episode.query_x).probabilities
        for support in (pixels.float() / 255, pixels.numpy(), paths)
    )
    assert torch.equal(of_floats, of_bytes) and torch.equal(of_bytes, of_files)
    for files in (np.array(list(map(str, paths))), np.array(paths), iter(paths)):
        assert torch.equal(predictor.reading.inputs(files, "x"), pixels.float() / 255)
    inverted = Pictures((1, 16, 16), inverts=True).inputs(paths, "support_x")
    assert_close(1 - inverted, pixels.float() / 255)


def test_black_ink_and_white_ink_are_one():
    """Where training was white on black, the support set says what a person's pictures are."""
    levels = torch.full((5, 1, 8, 8), 250, dtype=torch.uint8)
    levels[:, :, 3:5] = 10
    reading = Pictures((1, 8, 8), inverts_pictures=True)
    for pixels in (levels, 255 - levels):
        settled = reading.settled(reading.levels(pixels, "x"))
        assert_close(settled.inputs(pixels, "x"), (255 - levels) / 255)
    assert not replace(reading, inverts_pictures=False).settled(levels).inverts
    assert not replace(reading, polarity="light_on_dark").settled(levels).inverts


def test_what_the_support_set_says_of_itself():
    """Each example is answered without itself; what is learned of the confidence is between that and the checkpoint's."""
    predictor, episode = predictor_of("ProtoNet")
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    found = adapted.held_out
    assert sorted(found.rows.tolist()) == list(range(6)) and found.is_one_by_one and found.folds == 2
    out = found.rows[:3]
    others = [row for row in range(6) if row not in out.tolist()]
    alone = predictor.adapt(episode.support_x[others], episode.support_y[others])
    assert_close(alone.raw_outputs(episode.support_x[out])[0], found.probabilities[:3])
    sure, rows = torch.tensor([[0.99, 0.01]] * 20), torch.arange(20)
    for labels, low, high in ((rows % 2, 3, 100), (rows * 0, 0.01, 1)):
        assert low < found._replace(labels=labels, probabilities=sure, rows=rows).temperature(1.0) < high
    for of_checkpoint, expected in ((0.5, 1.0), (2.0, 2.0)):
        predictor.algorithm.temperature = of_checkpoint
        assert predictor.adapt(episode.support_x[::2], episode.support_y[::2]).temperature == expected
    with pytest.raises(InputError, match="method is 'nearest', which is none; give learned or feature_mean or pixel_mean"):
        predictor.adapt(episode.support_x, episode.support_y, method="nearest")
    pixels = predictor.adapt(episode.support_x, episode.support_y, method="pixel_mean").predict(episode.query_x)
    means = torch.stack([episode.support_x[episode.support_y == label].mean(0) for label in range(3)]).flatten(1)
    assert pixels.labels == torch.cdist(episode.query_x.flatten(1), means).argmin(1).tolist()


def test_the_order_in_memory_does_not_matter(tmp_path):
    """Another order is another rounding, and an adaptation in many steps makes much of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    turned = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    reading = Pictures((3, 8, 8))
    expected = reading.inputs(pixels, "x")
    for values in (paths, turned, torch.from_numpy(pixels).to(memory_format=torch.channels_last)):
        found = reading.inputs(values, "x")
        assert torch.equal(found, expected) and found.stride() == expected.stride()


def test_a_table_keeps_its_units():
    """y = 300 + 40 f((x - 1970) / 10), where f is what the method predicts of standardised numbers."""
    predictor, episode = predictor_of("CNP")
    plain = predictor.adapt(episode.support_x, episode.support_y).predict(episode.query_x)
    predictor.reading = Columns(["year"], ["price"], mean=[1970.0, 300.0], std=[10.0, 40.0])
    support_x, support_y, query_x, _ = (part.double().numpy() for part in episode)
    found = predictor.adapt(1970 + 10 * support_x, 300 + 40 * support_y[:, 0]).predict(1970 + 10 * query_x)
    assert_close(found.mean, 300 + 40 * plain.mean.double(), rtol=1e-6, atol=1e-4)
    assert_close(found.std, 40 * plain.std.double(), rtol=1e-5, atol=1e-4)


def test_numbers_with_many_digits(tmp_path):
    """Times in seconds are no multiples of what float32 tells apart: predictions keep them, and a program says that it cannot."""
    predictor, _ = predictor_of("CNP")
    predictor.reading = Columns(["seconds"], ["y"], mean=[1.7e9, 0.0], std=[10.0, 1.0])
    plain = Columns(["seconds"], ["y"], mean=[0.0, 0.0], std=[10.0, 1.0])
    support_x, query_x = torch.arange(-5, 5)[:, None], torch.arange(-7, 7)[:, None]
    adapted = predictor.adapt(1_700_000_000 + support_x, support_x[:, 0].sin())
    found = adapted.predict(1_700_000_000 + query_x)
    with pytest.raises(InputError, match=r"more digits than torch\.float32"):
        adapted.export(str(tmp_path / "adapted.pt2"), 1_700_000_000 + query_x)
    assert not any(tmp_path.iterdir())
    predictor.reading = plain
    expected = predictor.adapt(support_x, support_x[:, 0].sin()).predict(query_x)
    assert_close(found.mean, expected.mean, rtol=0, atol=1e-6)


WRONG = {
    "axes": (lambda x, y: (x[:, 0], y), ["(6, 16, 16)", "(rows, 1, 16, 16)"]),
    "channels": (lambda x, y: (x.expand(-1, 2, -1, -1), y), ["(6, 2, 16, 16)", "(1, 16, 16)"]),
    "range": (lambda x, y: (255 * x, y), ["from 0 to 255", "uint8"]),
    "type": (lambda x, y: ((255 * x).int(), y), ["int32", "uint8"]),
    "not finite": (lambda x, y: (x / 0, y), ["not finite"]),
    "no rows": (lambda x, y: (x[:0], y[:0]), ["no rows"]),
    "labels": (lambda x, y: (x, y[:4]), ["6 rows", "4"]),
    "one class": (lambda x, y: (x[:2], y[:2]), ["only class 0", "2 classes"]),
    "kinds of labels": (lambda x, y: (x, ["a", 1, "b", 2, "c", 3]), ["text", "numbers"]),
    "a column of labels": (lambda x, y: (x, y[:, None]), ["shape (6, 1)", "(rows,)"]),
    "labels that are no numbers": (lambda x, y: (x, [0.0, 0.0, 1.0, 1.0, float("nan"), float("nan")]), ["2 labels", "remove"]),
    "no labels": (lambda x, y: (x, 3), ["support_y", "list of labels"]),
    "one path": (lambda x, y: ("lost.png", y), ["single path, lost.png", "list"]),
    "no picture": (lambda x, y: (["lost.png"] * 6, y), ["lost.png"]),
}


@pytest.mark.parametrize("change, words", WRONG.values(), ids=WRONG)
def test_wrong_examples(change, words):
    predictor, episode = predictor_of("ProtoNet")
    x = (255 * episode.support_x).round() / 255
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0, 1
    with pytest.raises(InputError) as raised:
        predictor.adapt(*change(x, episode.support_y))
    assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)


EXPORTED = {
    "MAML, each query by itself": {"transductive": False},
    "CAVIA, of a table": {"task": "regression"},
    "GeMCL": {},
    "RelationNet": {"transductive": True},
    "NP": {},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.export, of its own doing
@pytest.mark.parametrize("name, options", EXPORTED.items(), ids=EXPORTED)
def test_export(name, options, tmp_path):
    predictor, episode = predictor_of(name.split(",")[0], **options)
    for module in predictor.algorithm.modules():
        if isinstance(module, TaskBatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1)
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    adapted.export(str(tmp_path / "adapted.pt2"), episode.query_x)
    program = torch.export.load(tmp_path / "adapted.pt2").module()
    given = [episode.query_x, episode.query_x[:3], torch.cat([episode.query_x] * 30)]
    if adapted.classes:  # pictures as a person has them
        given += [torch.randint(0, 256, (1, 3, 33, 20), dtype=torch.uint8), torch.rand(4, 1, 9, 40)]
        names = {"classes.json": ""}
        torch.export.load(tmp_path / "adapted.pt2", extra_files=names)
        assert json.loads(names["classes.json"]) == list(map(str, adapted.classes))
    for rows in given:
        found, expected = program(rows), adapted.predict(rows)
        expected = [part for part in expected if isinstance(part, torch.Tensor)]
        for one, other in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
            assert_close(one.detach(), other, rtol=0, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["adapted.pt2"]


def test_a_program_is_written_from_the_cpu(monkeypatch):
    predictor, episode = predictor_of("ProtoNet")
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    assert adapted.on_cpu() is adapted
    with monkeypatch.context() as patched:
        patched.setattr(type(predictor.algorithm), "device", torch.device("cuda", 0))
        twin = adapted.on_cpu()
    assert twin.algorithm is not adapted.algorithm
    tensors = [{tensor.data_ptr() for tensor in one.algorithm.parameters()} for one in (adapted, twin)]
    assert not tensors[0] & tensors[1]
    assert_close(twin.predict(episode.query_x).probabilities, adapted.predict(episode.query_x).probabilities)


def test_a_method_that_cannot_be_exported(tmp_path, monkeypatch):
    predictor, episode = predictor_of("ProtoNet")
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    assert adapted.temperature > 0
    monkeypatch.setattr(type(predictor.algorithm), "probabilities", lambda self, outputs: outputs[: int(outputs.sum())])
    with pytest.raises(InputError, match=r"ProtoNet cannot be exported .* leave --export out"):
        adapted.export(str(tmp_path / "adapted.pt2"), episode.query_x)
    assert not any(tmp_path.iterdir())


def test_inputs_beyond_the_grid():
    predictor, episode = predictor_of("ConvCNP")
    adapted = predictor.adapt(episode.support_x, episode.support_y)
    with pytest.raises(InputError, match=r"grid_range is from -5.0 to 5.0, the inputs go from 7 to 7"):
        adapted.predict([[7.0]])


def test_predictions_that_are_not_finite():
    algorithm, data = small_run("MAML", "regression", inner_lr=1e30)
    predictor, episode = Predictor(algorithm.eval(), Columns.numbered((1,), 1)), data.episode("test", 0)
    assert isinstance(data, Sinusoid)
    with pytest.raises(InputError, match="not finite"):
        predictor.adapt(episode.support_x, episode.support_y).predict(episode.query_x)


def test_pictures_are_normalised_and_copied_as_in_a_test():
    sizes = {"ways": 3, "shots": 2, "queries": 2, "meta_batch_size": 4}
    data, plain = Blots(**sizes, normalise="train", augment=PaddedCrop(padding=2)), Blots(**sizes)
    data.setup(), plain.setup()
    algorithm = method_for("ProtoNet", data, backbone=NETWORKS["Conv4_stride"], support_copies=3).eval()
    reading = Pictures(data.input_shape, **json.loads(json.dumps(data.describe_inputs())))
    assert reading.preparation.normalisation == data.preparation.normalisation
    pixels, episode = plain.episode("test", 0), data.episode("test", 0)
    adapted = Predictor(algorithm, reading).adapt(pixels.support_x, pixels.support_y)
    params, keys = dict(algorithm.named_parameters()), streams(np.zeros(1, np.uint64), np.arange(18))
    copies = data.preparation.copies(episode.support_x[None], keys)[0]
    fitted = algorithm.adapt(params, copies, episode.support_y.repeat_interleave(3))
    expected = algorithm.predict(params, fitted, episode.query_x).softmax(-1).detach()
    assert_close(adapted.raw_outputs(pixels.query_x)[0], expected, rtol=1e-4, atol=1e-5)
    algorithm.support_copies = None
    other = Predictor(algorithm, reading).adapt(pixels.support_x, pixels.support_y).raw_outputs(pixels.query_x)[0]
    assert (other - expected).abs().max() > 1e-3
