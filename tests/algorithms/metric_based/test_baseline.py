"""Baseline and Baseline++: training on all classes at once, and the head of a test task."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.command_line import QUIET, train
from helpers.small import SHOTS, WAYS, Blots, algorithm_for, random_tasks, take, trainer
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from app.algorithms.metric_based.baseline import Baseline
from app.algorithms.metric_based.baseline_pp import BaselinePP
from app.algorithms.metric_based.protonet import ProtoNet
from app.backbones import Conv4
from app.backbones.task_batch_norm import TaskBatchNorm
from app.errors import InputError
from datamodules.base.split_images import rotated_classes

METHODS = [Baseline, BaselinePP]
each_method = pytest.mark.parametrize("cls", METHODS)
NUM_CLASSES = 40


class Turned(Blots):
    """Blots with the training classes turned as well."""

    def read_split(self, split):
        upright = super().read_split(split)
        return rotated_classes(upright) if split == "train" else upright


def small(cls=Baseline, **options):
    data = Blots(ways=WAYS, shots=SHOTS, queries=2, train_ways=6, meta_batch_size=2, val_episodes=3, test_episodes=3)
    return algorithm_for(cls, data, backbone=partial(Conv4, width=4), **options), data


@pytest.mark.parametrize("data_set", [Blots, Turned])
def test_labels_are_the_classes_of_the_train_split(data_set):
    options = {"ways": 3, "train_ways": 5, "shots": 2, "queries": 3, "seed": 4}
    within_task, within_split = data_set(**options), data_set(global_labels=True, **options)
    assert within_task.train_output_size == 5
    classes = NUM_CLASSES * (4 if data_set is Turned else 1)
    assert within_split.train_output_size == classes and within_split.output_size == 3
    within_task.setup()
    split = within_split._splits["train"]
    seen = set()
    for index in range(20):
        expected, episode = within_task.episode("train", index), within_split.episode("train", index)
        assert torch.equal(episode.support_x, expected.support_x) and torch.equal(episode.query_x, expected.query_x)
        for images, labels in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
            for image, label in zip(images, labels, strict=True):
                first = split.counts[:label].sum()
                own = split.images[first : first + split.counts[label]]
                assert any(np.array_equal(np.float32(one) / 255, image.numpy()) for one in own)
        seen |= set(episode.support_y.tolist())
        for name in ("val", "test"):
            assert all(map(torch.equal, within_task.episode(name, index), within_split.episode(name, index)))
    assert len(seen) > 20 and max(seen) < classes


@each_method
def test_training_is_ordinary_classification(float64, cls):
    algorithm, data = small(cls)
    data.setup()
    batch = data.realise("train", data.draws("train", [0, 1]))
    losses, metrics = algorithm.losses(dict(algorithm.named_parameters()), batch)
    assert algorithm.head.weight.shape[0] == NUM_CLASSES
    for task in range(2):
        support_x, support_y, query_x, query_y = take(batch, task)
        features, labels = algorithm.net(torch.cat([support_x, query_x])), torch.cat([support_y, query_y])
        if cls is Baseline:
            outputs = algorithm.head(features)
        else:
            assert_close(algorithm.head.norm, algorithm.head.weight.norm(dim=1))
            outputs = 2 * F.normalize(features) @ algorithm.head.weight.T
        assert_close(losses[task], F.cross_entropy(outputs, labels), rtol=1e-10, atol=1e-10)
        assert metrics["accuracy"][task] == (outputs.argmax(-1) == labels).double().mean()


@each_method
def test_head_of_a_task_equals_torch_optim(float64, cls):
    algorithm, _ = small(cls, inner_lr=0.1, eval_inner_steps=12)
    algorithm.eval()
    features, labels = torch.randn(2, 6, 4), random_tasks().support_y
    stages = list(algorithm.descent(features, labels))
    assert len(stages) == 13
    for task in range(2):
        head = nn.Linear(4, WAYS, bias=cls is Baseline)
        start = {name: weight[task] for name, weight in stages[0].items()}
        head.load_state_dict({name: weight for name, weight in start.items() if name != "norm"})
        if cls is BaselinePP:
            weight_norm(head)  # as in the authors' program: its first factors are the norms
            names = {"parametrizations.weight.original0": "norm", "parametrizations.weight.original1": "weight"}
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.001)
        for _ in range(12):
            outputs = head(features[task])
            if cls is BaselinePP:
                outputs = 2 * head(F.normalize(features[task]))
            optimizer.zero_grad()
            F.cross_entropy(outputs, labels[task]).backward()
            optimizer.step()
        for name, weight in head.named_parameters():
            fitted = stages[-1][names[name] if cls is BaselinePP else name][task]
            assert_close(fitted, weight.view_as(fitted), rtol=1e-9, atol=1e-12)


@each_method
def test_first_head_is_that_of_every_task(cls):
    """`predict` knows no number of an episode, and must say what `test` does."""
    algorithm, _ = small(cls)
    algorithm.eval()
    features = torch.zeros(3, 6, 4)
    drawn = algorithm.initial_heads(features)
    again = algorithm.initial_heads(features[:1])
    for name, weight in drawn.items():
        assert torch.equal(again[name][0], weight[1]) and torch.equal(weight[0], weight[1])
        assert 0 < weight.abs().max() <= 1
    assert drawn["weight"].min() < 0 < drawn["weight"].max()


def test_scale_of_the_cosine():
    algorithm, _ = small(BaselinePP)
    features = torch.randn(5, 4)
    for classes, scale in ((WAYS, 2.0), (200, 2.0), (201, 10.0)):
        head = {"weight": features[:1].expand(classes, -1), "norm": torch.full((classes,), 3.0)}
        assert_close(algorithm.logits(head, features)[0], torch.full((classes,), 3 * scale))
    chosen, _ = small(BaselinePP, scale=7.0)
    assert_close(chosen.logits({"weight": features, "norm": torch.ones(5)}, features).diagonal(), torch.full((5,), 7.0))


@each_method
def test_fitting_a_head_leaves_the_features_alone(cls):
    algorithm, data = small(cls, eval_inner_steps=3)
    run = trainer(2)
    run.fit(algorithm, data)
    before = deepcopy(algorithm.state_dict())
    run.test(algorithm, datamodule=data, verbose=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in algorithm.state_dict().items())
    norms = [module for module in algorithm.net.modules() if isinstance(module, TaskBatchNorm)]
    assert all((norm.running_mean != 0).any() for norm in norms)


def test_labels_that_do_not_fit_the_method():
    algorithm, _ = small()
    within_task = Blots(ways=3, shots=2, queries=2)
    with pytest.raises(InputError, match=r"Baseline learns all training classes at once, .*--data.global_labels false"):
        algorithm.check_data(within_task)
    protonet = algorithm_for(ProtoNet, within_task)
    with pytest.raises(InputError, match=r"ProtoNet learns the classes of one task at a time, .*--data.global_labels true"):
        protonet.check_data(small()[1])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_cannot_be(value):
    with pytest.raises(InputError, match=f"--model.scale is {value}; give a number above 0"):
        small(BaselinePP, scale=value)


@pytest.mark.slow
def test_command_line_chooses_the_labels_and_resumes(tmp_path):
    """A run of 4 steps equals one of 2 that went on."""
    sizes = [f"--data.{name}={value}" for name, value in (("ways", 3), ("train_ways", 6), ("queries", 2), ("meta_batch_size", 2))]
    episodes = ["--data.val_episodes=2", "--data.test_episodes=2", "--trainer.val_check_interval=2", *QUIET]
    model = ["--model=BaselinePP", "--model.backbone=Conv4", "--model.backbone.width=4", "--model.eval_inner_steps=3"]
    run = ["fit", f"--data={Turned.__module__}.Turned", *sizes, *episodes, *model]
    states = []
    for folder, legs in (("whole", [4]), ("broken", [2, 4])):
        for number, steps in enumerate(legs):
            resume = ["--ckpt_path=last"] * (number > 0)
            done = train(*run, f"--trainer.max_steps={steps}", f"--trainer.default_root_dir={tmp_path / folder}", *resume)
            assert done.status == 0, done.err
        path = tmp_path / folder / "checkpoints" / "last.ckpt"
        states.append(torch.load(path, weights_only=False)["state_dict"])
        assert states[-1]["head.weight"].shape == (4 * NUM_CLASSES, 4)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    tested = train("test", "--config", tmp_path / "broken" / "config.yaml", "--ckpt_path", path)
    assert tested.status == 0, tested.err
    given = train(*run, "--data.global_labels=false", "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path / 'other'}")
    assert given.status == 1
    assert given.err == "error: --data.global_labels is no option of the command line: it follows from --model; leave it out\n"


def test_logistic_regression_of_features_of_length_one(float64):
    algorithm, data = small(eval_head="logistic")
    support_x, support_y, query_x, _ = take(random_tasks(), 0)
    params = dict(algorithm.double().eval().named_parameters())
    found = algorithm.predict(params, algorithm.adapt(params, support_x, support_y), query_x)
    support, queries = (F.normalize(algorithm.embed(params, x[None])[0], dim=-1) for x in (support_x, query_x))
    weight, bias = torch.zeros(4, WAYS, requires_grad=True), torch.zeros(WAYS, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], lr=1.0, max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(support.detach() @ weight + bias, support_y, reduction="sum") + weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    assert_close(found.softmax(-1), (queries @ weight + bias).softmax(-1).detach(), rtol=1e-5, atol=1e-7)
    run = trainer(1)
    run.fit(algorithm.float().train(), data)
    run.test(algorithm, datamodule=data, verbose=False)
    assert len(algorithm.evaluation["scores"]["accuracy"]["mean"]) == 1


def test_the_cosine_to_the_means_of_the_classes(float64):
    algorithm, _ = small(eval_head="centroid")
    support_x, support_y, query_x, _ = take(random_tasks(), 0)
    params = dict(algorithm.double().eval().named_parameters())
    found = algorithm.predict(params, algorithm.adapt(params, support_x, support_y), query_x)
    support, queries = (algorithm.embed(params, x[None])[0] for x in (support_x, query_x))
    means = torch.stack([support[support_y == way].mean(0) for way in range(WAYS)])
    assert_close(found, 10 * F.cosine_similarity(queries[:, None], means[None], dim=-1), rtol=1e-9, atol=1e-9)
