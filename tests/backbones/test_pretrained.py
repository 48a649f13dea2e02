"""A network of timm as the backbone: its features, its gradients, what of it is trained, and what is refused."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import QUIET, train
from helpers.gradients import difference_error, gradient_of
from helpers.pretrained import NAME, write_weights
from helpers.small import Blots, random_tasks, trainer
from PIL import Image
from torch import nn
from torch.testing import assert_close

import app
from app.algorithms.metric_based.protonet import ProtoNet
from app.algorithms.optimisation_based.maml import MAML
from app.backbones.elementary import Elementary
from app.backbones.pretrained import Pretrained
from app.errors import InputError
from datamodules.base.encoder import Encoder, frozen

OTHERS = {"test_vit": 32, "test_convnext": 64, "test_nfnet": 32, "test_efficientnet_gn": 32}  # with norms of other kinds


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "resnet.safetensors")


def network(weights: Path, name: str = NAME, size: int | None = 32, **options) -> partial:
    return partial(Pretrained, name=name, weights=weights, size=size, **options)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 40, 57), (1, 28, 28)])
def test_features_are_those_of_the_encoder(weights, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    encoder = Encoder(NAME, weights, 32, normalises=False, dtype="float32")
    expected = frozen(encoder, "cpu").in_blocks(encoder.prepared(pixels))
    net = network(weights)(shape, None).train()
    with torch.no_grad():
        found = net(torch.from_numpy(pixels) / 255)
    assert_close(found, expected, atol=0.02 * float(expected.std()), rtol=0)  # timm rounds resized pixels to whole levels
    assert net.num_features == encoder.num_features == found.shape[1]
    with torch.no_grad():
        alone = net(torch.from_numpy(pixels[:1]) / 255)
    assert_close(alone, found[:1], atol=1e-5, rtol=1e-4)  # in training as well a picture depends on no other


@pytest.mark.parametrize("name", [NAME, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_gradients_through_an_inner_loop(float64, weights, tmp_path, name):
    file = weights if name == NAME else write_weights(tmp_path / "other.safetensors", name)
    backbone = network(file, name, OTHERS.get(name, 32))
    algorithm = MAML(input_shape=(3, 16, 16), output_size=3, backbone=backbone, inner_lr=0.01, inner_steps=1)
    with torch.no_grad():
        for own, tensor in algorithm.state_dict().items():
            if "running_var" not in own and tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor), alpha=0.1)  # features that are zero lie on a kink of the rectifiers
    batch = random_tasks(2, (3, 16, 16))
    assert difference_error(algorithm, batch, gradient_of(algorithm, batch)) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_formulas_equal_torchs_layers(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0).double().eval()
    x = torch.randn(2, 3, *net.pretrained_cfg["input_size"][1:], dtype=torch.float64)
    with torch.no_grad():
        expected = net(x)
        with Elementary():
            assert_close(net(x), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cls", [ProtoNet, MAML])
def test_frozen_stages_stay_and_the_others_move(weights, cls):
    data = Blots(ways=3, shots=1, queries=2, meta_batch_size=2, val_episodes=2, test_episodes=2)
    algorithm = cls(input_shape=data.input_shape, output_size=3, backbone=network(weights, freeze=2))
    before = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    trainer(2).fit(algorithm, data)
    moved = {name for name, tensor in algorithm.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("layer4" in name for name in moved)
    assert not [name for name in moved if "conv1.0" in name or "layer1" in name or "running" in name]
    whole = cls(input_shape=data.input_shape, output_size=3, backbone=network(weights))
    assert whole.state_dict().keys() == before.keys() and len(list(whole.parameters())) > len(list(algorithm.parameters()))


class Recurrent(nn.Module):
    """A layer for which vmap has no rule."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x.mean((2, 3))[None])[0][0]


def test_a_layer_without_a_rule_is_refused_for_mamls_kin_alone(weights):
    data = Blots(ways=3, shots=1, queries=2)
    for cls in (MAML, ProtoNet):
        algorithm = cls(input_shape=data.input_shape, output_size=3, backbone=network(weights))
        algorithm.check_data(data)
        algorithm.net.body[1].net = Recurrent()
        if cls is MAML:
            with pytest.raises(InputError, match=r"--model MAML .* a layer of .*Pretrained cannot be \(Batching rule not .*\)"):
                algorithm.check_data(data)
        else:
            algorithm.check_data(data)


def command(weights: Path, place: Path) -> list[str]:
    return [
        *("--model=ProtoNet", "--model.backbone=Pretrained", f"--model.backbone.name={NAME}", "--model.backbone.size=32"),
        *(f"--model.backbone.weights={weights}", "--model.distance=cosine", "--model.learns_scale=true", "--data=Glyphs"),
        *("--data.ways=2", "--data.queries=2", "--data.meta_batch_size=2", "--data.val_episodes=2", "--data.test_episodes=2"),
        *(*QUIET, f"--trainer.default_root_dir={place}/run"),
    ]


@pytest.mark.slow
def test_a_checkpoint_needs_no_published_weights(weights, tmp_path):
    moving = tmp_path / "weights.safetensors"
    moving.write_bytes(weights.read_bytes())
    outcome = train("fit", *command(moving, tmp_path), "--model.head_lr_factor=10", "--trainer.max_steps=1")
    assert outcome.status == 0, outcome.err
    moving.unlink()
    outcome = train("fit", "--config", f"{tmp_path}/run/config.yaml", "--ckpt_path=last", "--trainer.max_steps=2")
    assert outcome.status == 0, outcome.err
    last = f"{tmp_path}/run/checkpoints/last.ckpt"
    outcome = train("test", "--config", f"{tmp_path}/run/config.yaml", "--ckpt_path", last)
    assert outcome.status == 0, outcome.err
    pictures = [Image.fromarray(np.full((40, 40), level, np.uint8)) for level in (30, 200)]
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    predictor = app.load(last)
    state = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in predictor.algorithm.state_dict().items())
    assert predictor.adapt(paths, ["dark", "light"]).predict(paths).labels == ["dark", "light"]


def test_what_is_wrong_is_said_in_a_line(weights, tmp_path, monkeypatch):
    cut, other = tmp_path / "cut.safetensors", write_weights(tmp_path / "other.safetensors", "test_efficientnet")
    cut.write_bytes(weights.read_bytes()[:5000])
    torch.save({"conv": print}, tmp_path / "code.pt")
    wrong = [
        ({"weights": other}, f"--model.backbone.weights {other} does not hold the weights of test_resnet"),
        ({"weights": cut}, f"--model.backbone.weights {cut} (5,000 bytes) is not a whole file of tensors"),
        ({"weights": tmp_path / "code.pt"}, "is not a whole file of tensors"),
        ({"weights": "nowhere"}, "--model.backbone.weights nowhere does not exist"),
        ({"name": "test_resnett"}, "--model.backbone.name test_resnett is no network of timm; the nearest are test_resnet"),
        ({"freeze": 9}, "--model.backbone.freeze 9 is more than the 5 stages of test_resnet"),
        ({"freeze": -1}, "--model.backbone.freeze is -1; give at least 0"),
        ({"size": 0}, "--model.backbone.size is 0; give at least 8"),
        ({"input_shape": (7,)}, "the data has inputs of shape (7,); choose --model.backbone MLP"),
        (
            {"input_shape": (2, 32, 32)},
            "Pretrained takes pictures, grey or in colour, and the data has inputs of shape (2, 32, 32)",
        ),
    ]
    right = {"input_shape": (3, 32, 32), "output_size": 2, "name": NAME, "weights": weights, "size": 32}
    for options, said in wrong:
        with pytest.raises(InputError, match=re.escape(said)) as refused:
            Pretrained(**right | options)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"--model.backbone Pretrained takes pixels from 0 to 1; leave --data.normalise out"):
        data = Blots(ways=3, shots=1, queries=2, normalise="train")
        ProtoNet(input_shape=data.input_shape, output_size=3, backbone=network(weights)).check_data(data)

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("app.pretrained.network.import_module", absent)
    with pytest.raises(InputError, match=r"`uv sync --extra pretrained`"):
        Pretrained(**right | {"size": 48})
