"""A frozen network before the data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.pretrained import NAME, SIZE, write_weights
from helpers.small import Blots
from helpers.streams import Patterns, go_on, method_for
from PIL import Image

import app
from app.continual.base.method import class_masks
from app.continual.references import ENCODED, RAW, references
from datamodules.base.encoder import Encoder
from datamodules.image_folder import ImageFolder

CLASSES, PICTURES = 9, 6


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "resnet.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures of several sizes, each class in colours of its own."""
    place, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label in range(CLASSES):
        (place / f"class {label}").mkdir()
        colour = generator.integers(0, 256, 3)
        for number in range(PICTURES):
            height, width = generator.integers(40, 80, 2)
            pixels = (colour + generator.integers(-40, 40, (height, width, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"class {label}" / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory, weights, folder) -> Path:
    """A run on features of the pictures, and its cache."""
    place = tmp_path_factory.mktemp("run")
    outcome = train("fit", *on_features(folder, weights, place), "--trainer.max_steps=2")
    assert outcome.status == 0, outcome.err
    return place


def on_features(folder: Path, weights: Path, place: Path) -> list[str]:
    """A command line."""
    return [
        *("--model=ProtoNet", "--model.backbone=Identity", "--data=ImageFolder", f"--data.path={folder}"),
        *(f"--data.encoder={NAME}", f"--data.encoder.weights={weights}", f"--data.encoder.size={SIZE}"),
        *("--data.ways=2", "--data.queries=3", "--data.meta_batch_size=2", "--data.val_episodes=2", "--data.test_episodes=2"),
        *("--data.split_fractions", "0.4", "0.3", "0.3"),
        *(*QUIET, f"--trainer.default_root_dir={place}/run", f"--data.cache_dir={place}/cache"),
    ]


def expected(pictures: list[Image.Image], weights: Path) -> torch.Tensor:
    """Features as timm's own documentation computes them, one picture at a time."""
    import timm
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_data_config

    net = timm.create_model(NAME, num_classes=10)
    net.load_state_dict(load_file(weights))
    config = resolve_data_config({"input_size": (3, SIZE, SIZE)}, model=net)
    transform = create_transform(**config, is_training=False)
    with torch.no_grad():
        return torch.cat([net.eval().forward_head(net.forward_features(transform(p)[None]), pre_logits=True) for p in pictures])


def test_features_are_those_of_timm(weights, folder, tmp_path):
    data = ImageFolder(str(folder), cache_dir=str(tmp_path), encoder=Encoder(NAME, weights, SIZE), ways=2, queries=3)
    data.prepare_data()
    data.setup()
    (features,) = {data.episode("train", 3).support_x.shape[1:]}
    assert data.input_shape == tuple(features)
    split = data._splits["train"]
    names = [f"{folder}/{label}/{number}.png" for label in split.class_names for number in range(PICTURES)]
    by_timm = expected([Image.open(name) for name in names], weights)
    found = torch.from_numpy(np.array(split.images)).float()
    by_timm = torch.nn.functional.normalize(by_timm, dim=1)
    assert torch.allclose(found, by_timm, rtol=2e-3, atol=2e-4)
    assert by_timm.std(0).mean() > 1e-3  # they differ from picture to picture
    assert not list(tmp_path.glob("image_folder-*"))  # no pixels are kept of pictures as they are


def test_grey_pictures_in_arrays_are_encoded_too(weights, tmp_path):
    plain, data = Blots(ways=3), Blots(ways=3, encoder=Encoder(NAME, weights, SIZE, normalises=False, dtype="float32"))
    data.cache_dir = str(tmp_path)
    data.used_splits = ("val",)
    data.setup()
    rows = plain.read_split("val").images[:5, 0]
    by_timm = expected([Image.fromarray(row).convert("RGB") for row in rows], weights)
    assert torch.allclose(torch.from_numpy(data._splits["val"].images[:5]), by_timm, atol=1e-4)
    assert len(list(tmp_path.glob("blots-features-*"))) == 1  # of the split that is used
    assert data.manifest_hash != plain.manifest_hash


def test_streams_learn_and_remember_features(weights, tmp_path):
    stream = Patterns(encoder=Encoder(NAME, weights, SIZE))
    stream.cache_dir = str(tmp_path)
    method = method_for("ER", stream)
    go_on(method, stream)
    batch = stream.batch(0)
    assert batch.images.dtype == torch.float16 and batch.x.shape[1:] == stream.input_shape
    found = references(method.net, stream, class_masks(stream), "class")
    assert ENCODED in found and RAW not in found
    kept = method.memory.at(torch.arange(3)).x
    seen = torch.cat([stream.samples(number, "train").images for number in range(3)]).float()
    assert all((seen == row).all(1).any() for row in kept)


def test_raw_pictures_are_answered_as_the_test_does(run, weights, folder):
    data = ImageFolder(
        str(folder),
        cache_dir=f"{run}/cache",
        encoder=Encoder(NAME, weights, SIZE),
        ways=2,
        queries=3,
        split_fractions=(0.4, 0.3, 0.3),
    )
    data.prepare_data()
    data.setup()
    predictor = app.load(f"{run}/run/checkpoints/last.ckpt")
    files = [f"{folder}/{label}/{number}.png" for label in data.class_names("test") for number in range(PICTURES)]
    for index in range(4):
        rows, episode = np.concatenate(data.draw("test", index), 1), data.episode("test", index)
        adapted = predictor.adapt([files[row] for row in rows[:, 0]], ["a", "b"])
        found = adapted.predict([files[row] for row in rows[:, 1:].ravel()])
        algorithm, params = predictor.algorithm, dict(predictor.algorithm.named_parameters())
        fitted = algorithm.adapt(params, episode.support_x, episode.support_y)
        outputs = algorithm.predict(params, fitted, episode.query_x)
        assert found.labels == ["ab"[label] for label in outputs.argmax(1)]
        (raw,) = adapted.raw_outputs(predictor.reading.inputs([files[row] for row in rows[:, 1:].ravel()], "files"))
        assert torch.allclose(raw, algorithm.probabilities(outputs), atol=1e-3)


@pytest.mark.slow
def test_an_exported_program_takes_pixels(run, folder, tmp_path):
    predictor = app.load(f"{run}/run/checkpoints/last.ckpt", device="cpu")
    files = [f"{folder}/class {label}/{number}.png" for label in (0, 1) for number in (0, 1)]
    adapted = predictor.adapt(files, [0, 0, 1, 1])
    adapted.export(str(tmp_path / "adapted.pt2"), files)
    program = torch.export.load(tmp_path / "adapted.pt2").module()
    assert torch.allclose(program(predictor.reading.levels(files, "files")), adapted.predict(files).probabilities, atol=1e-3)


@pytest.mark.slow
def test_predict_takes_the_weights_from_another_place(run, weights, folder, tmp_path):
    moved = tmp_path / "moved.safetensors"
    weights.rename(moved)
    place = f"{run}/run/checkpoints/last.ckpt"
    try:
        with pytest.raises(ValueError, match=r"its weights are not in .*; give their file as --encoder_weights"):
            app.load(place)
        arguments = ("predict", "--ckpt_path", place, "--support", folder, "--query", folder, "--out", tmp_path / "found.csv")
        outcome = train(*arguments, "--encoder_weights", moved)
        assert outcome.status == 0 and "accuracy" in outcome.out, outcome.err
        other = write_weights(tmp_path / "other.safetensors", seed=1)
        with pytest.raises(ValueError, match=r"does not hold the weights of test_resnet that .* was trained with"):
            app.load(place, encoder_weights=str(other))
    finally:
        moved.rename(weights)


@pytest.mark.slow
def test_another_encoder_than_the_checkpoints_is_refused(run, weights, folder, tmp_path):
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    for verb, given in (("test", [f"--data.encoder.weights={other}"]), ("fit", ["--data.encoder.size=40"])):
        options = [*on_features(folder, weights, run), *given, f"--ckpt_path={run}/run/checkpoints/last.ckpt"]
        outcome = train(verb, *options, "--trainer.max_steps=4")
        assert outcome.status == 1 and "give the encoder of its run" in outcome.err, outcome.err
        assert outcome.err.count("\n") == 1


def wrong(weights: Path, folder: Path) -> dict[str, tuple[list[str], str]]:
    """Options, and what is said of them."""
    cut, of_another = folder / "cut.safetensors", write_weights(folder / "another.safetensors", "test_efficientnet")
    cut.write_bytes(weights.read_bytes()[:5000])
    torch.save({"conv": print}, folder / "code.pt")
    return {
        "another": ([f"--data.encoder.weights={of_another}"], "does not hold the weights of test_resnet"),
        "cut": ([f"--data.encoder.weights={cut}"], "(5,000 bytes) is not a whole file of tensors"),
        "code": ([f"--data.encoder.weights={folder}/code.pt"], "is not a whole file of tensors"),
        "absent": (["--data.encoder.weights=nowhere"], "--data.encoder.weights nowhere does not exist"),
        "unknown": (["--data.encoder=test_resnett"], "is no network of timm; the nearest are test_resnet"),
        "size": (["--data.encoder.size=0"], "--data.encoder.size is 0; give at least 8"),
        "width": (["--model.backbone=Conv4"], "Conv4 takes images, the data has inputs of shape"),
    }


@pytest.mark.slow
def test_what_is_wrong_with_an_encoder_is_said_in_a_line(weights, folder, tmp_path):
    for options, said in wrong(weights, tmp_path).values():
        outcome = train("fit", *on_features(folder, weights, tmp_path), *options)
        assert outcome.status in (1, 2) and said in outcome.err, (options, outcome.err)
        assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, outcome.err


def test_without_timm_a_line_says_how_to_get_it(weights, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("app.pretrained.network.import_module", absent)
    outcome = train("fit", *on_features(folder, weights, tmp_path), "--data.encoder.size=48")
    assert outcome.status == 1 and "`uv sync --extra pretrained`" in outcome.err, outcome.err
    assert outcome.err.count("\n") == 1


def absent(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
