"""Learning a stream on frozen features, against plain loops."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small import Blots, algorithm_for, trainer
from torch.testing import assert_close

from app.backbones import Conv4
from app.continual.meta_trained.deployment import class_means, deployed_heads, fresh_rows, nearest_mean, with_constant
from app.continual.meta_trained.gemcl import GeMCL
from app.continual.meta_trained.oml import OML
from app.continual.meta_trained.pretraining import Pretraining
from app.episode import Episode
from app.errors import InputError
from datamodules.trajectories import Trajectories

CLASSES, PER_CLASS, SIZE = 4, 3, 6


def stream(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    features = torch.randn(len(labels), SIZE, generator=generator, dtype=dtype) + F.one_hot(labels, SIZE)
    return features.relu(), labels


@pytest.mark.parametrize("seed", [0, 1])
def test_heads_equal_torch_adam(seed):
    features, labels = zip(*(stream(seed + number) for number in range(2)), strict=True)
    initial = torch.stack([fresh_rows(CLASSES, SIZE, torch.Generator().manual_seed(number)) for number in range(2)]).double()
    lrs = torch.tensor([[0.1, 1e-3, 1e-4], [0.03, 0.01, 3e-4]], dtype=torch.float64)
    found = deployed_heads(with_constant(torch.stack(features)), torch.stack(labels), F.pad(initial, (0, 1)), lrs)
    for number in range(2):
        for rate, lr in enumerate(lrs[number].tolist()):
            head = torch.nn.Linear(SIZE, CLASSES).double()
            with torch.no_grad():
                head.weight.copy_(initial[number])
                head.bias.zero_()
            optimizer = torch.optim.Adam(head.parameters(), lr)
            for x, y in zip(features[number], labels[number], strict=True):
                optimizer.zero_grad()
                F.cross_entropy(head(x[None]), y[None]).backward()
                optimizer.step()
            expected = torch.cat([head.weight, head.bias[:, None]], 1).detach()
            assert_close(found[number, rate], expected, rtol=1e-9, atol=1e-12)


def test_class_means_equal_numpy():
    features, labels = stream()
    queries, _ = stream(5)
    means = class_means(features[None], labels[None], CLASSES)
    expected = np.stack([features.numpy()[labels.numpy() == label].mean(0) for label in range(CLASSES)])
    np.testing.assert_allclose(means[0], expected, rtol=1e-12)
    distances = ((queries.numpy()[:, None] - expected) ** 2).sum(-1)
    found = nearest_mean(means, queries[None])[0].numpy()
    np.testing.assert_allclose(found - found[:, :1], distances[:, :1] - distances, rtol=1e-9, atol=1e-9)


# The whole evaluation

LRS = (0.1, 3e-3, 1e-5)


class Streams(Blots):
    """Streams of two lengths, of half the size in every other episode."""

    has_streams = True

    def draw(self, split, index):
        ways = self.ways // 2 if split != "train" and index % 2 else self.ways
        return tuple(rows[:ways] for rows in super().draw(split, index))

    def _evaluation_loader(self, split):
        return Trajectories._evaluation_loader(self, split)


def run(cls, **wanted):
    data = Streams(ways=6, shots=3, queries=3, meta_batch_size=2, val_episodes=6, test_episodes=4)
    data.setup()
    algorithm = algorithm_for(cls, data, backbone=partial(Conv4, width=8), deployment_lrs=LRS, **wanted)
    return algorithm, data


def reference(algorithm, episode, index, lr, iid=False, params=None):
    """Held-out and training accuracy after a plain loop over the stream."""
    params = params or dict(algorithm.named_parameters())
    with torch.no_grad():
        support, queries = (algorithm.encode(params, x[None], index)[0] for x in (episode.support_x, episode.query_x))
        classes = int(episode.support_y.max()) + 1
        order = torch.arange(len(support))
        if iid:
            order = torch.randperm(len(support), generator=next(algorithm.generators(1, index)))
        rows = max(classes, algorithm.num_outputs or 0)
        head = algorithm.fresh_heads(support[None], rows, index)[0].requires_grad_()
    optimizer = torch.optim.Adam([head], lr)
    for x, y in zip(support[order], episode.support_y[order], strict=True):
        optimizer.zero_grad()
        F.cross_entropy((x @ head.T)[None], y[None]).backward()
        optimizer.step()
    accuracies = [
        ((x @ head.T).argmax(-1) == y).double().mean().item()
        for x, y in ((queries, episode.query_y), (support, episode.support_y))
    ]
    means = torch.stack([support[episode.support_y == label].mean(0) for label in range(classes)])
    nearest = torch.cdist(queries, means).argmin(-1)
    return *accuracies, (nearest == episode.query_y).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "outputs"), [(OML, 20), (Pretraining, None), (GeMCL, None)])
def test_rates_are_chosen_on_validation_streams_and_used_in_test(cls, outputs):
    algorithm, data = run(cls, num_outputs=outputs)
    assert algorithm.describe_algorithm()["deployment_outputs"] == (outputs or "the classes of the stream")
    name = f"accuracy{algorithm.sgd}"
    whole = trainer(2, val_check_interval=2, check_val_every_n_epoch=None)
    whole.fit(algorithm, datamodule=data)
    algorithm.eval()
    chosen, val = algorithm.chosen_lrs, algorithm.evaluation["scores"]
    assert set(chosen) == {name, "accuracy_iid", "accuracy_random_init"}
    untrained = algorithm._untrained_params()
    kinds = {name: {}, "accuracy_iid": {"iid": True}, "accuracy_random_init": {"params": untrained}}
    for kind, wanted in kinds.items():
        best = {}
        for length in (6, 3):
            episodes = [(i, data.episode("val", i)) for i in range(6) if (i % 2 == 1) == (length == 3)]
            means = [np.mean([reference(algorithm, e, i, lr, **wanted)[0] for i, e in episodes]) for lr in LRS]
            assert chosen[kind][length] == LRS[int(np.argmax(means))]
            best[length] = max(means)
        assert val[kind]["mean"][0] == pytest.approx(np.mean(list(best.values())))
    trainer().test(algorithm, datamodule=data, verbose=False)
    assert algorithm.chosen_lrs == chosen
    scores = algorithm.evaluation["scores"]
    algorithm.eval()
    expected = {key: [] for key in (*kinds, f"train_{name}", "accuracy_class_mean", "accuracy_random_init_class_mean")}
    for index in range(4):
        episode = data.episode("test", index)
        length = 3 if index % 2 else 6
        for kind, wanted in kinds.items():
            found = reference(algorithm, episode, index, chosen[kind][length], **wanted)
            expected[kind].append(found[0])
            if kind == name:
                expected[f"train_{name}"].append(found[1])
                expected["accuracy_class_mean"].append(found[2])
            elif kind == "accuracy_random_init":
                expected["accuracy_random_init_class_mean"].append(found[2])
    for key, values in expected.items():
        assert scores[key]["mean"][0] == pytest.approx(np.mean(values)), key


def test_the_chosen_rates_are_in_the_checkpoint_and_in_the_results(tmp_path):
    algorithm, data = run(OML)
    whole = trainer(2, val_check_interval=2, check_val_every_n_epoch=None)
    whole.fit(algorithm, datamodule=data)
    whole.save_checkpoint(tmp_path / "a.ckpt")
    other, data = run(OML)
    assert "no validation took place" in other.describe_algorithm()["deployment_lrs"]
    assert other.deployment_lr("accuracy", 6) == LRS[1]
    trainer().test(other, datamodule=data, ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=False)
    assert other.chosen_lrs == algorithm.chosen_lrs == other.describe_algorithm()["deployment_lrs"]


def test_the_rate_of_the_nearest_length():
    algorithm, _ = run(OML)
    algorithm.chosen_lrs = {"accuracy": {10: 0.1, 50: 0.01}}
    assert [algorithm.deployment_lr("accuracy", n) for n in (2, 20, 25, 600)] == [0.1, 0.1, 0.01, 0.01]


def test_an_encoder_that_learned_nothing_stays_the_same():
    """Whatever the method has learned, and in another process."""
    algorithm, _ = run(OML)
    before = {name: weight.clone() for name, weight in algorithm._untrained_params().items()}
    other, _ = run(OML)
    with torch.no_grad():
        for weight in other.parameters():
            weight.fill_(7.0)
    torch.randn(3)
    assert all(torch.equal(before[name], weight) for name, weight in other._untrained_params().items())
    assert any((before[name] != 7.0).any() for name in before)


def test_an_image_is_encoded_alone():
    algorithm, data = run(OML)
    episode = data.episode("test", 0)
    params = dict(algorithm.named_parameters())
    together = algorithm.encode(params, episode.query_x[None])[0]
    alone = torch.cat([algorithm.encode(params, x[None, None])[0] for x in episode.query_x])
    assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert together[:, :-1].std(0).max() > 0.01 and (together[:, -1] == 1).all()


@pytest.mark.parametrize("lrs", [(), (0.0,), (0.1, float("inf")), (-1.0,)])
def test_rates_that_cannot_be(lrs):
    with pytest.raises(InputError, match=r"deployment_lrs is .*; give at least one"):
        algorithm_for(OML, Blots(ways=3), deployment_lrs=lrs)


def test_tasks_in_one_batch_equal_tasks_alone():
    algorithm, data = run(OML)
    algorithm.eval()
    params = dict(algorithm.named_parameters())
    episodes = [data.episode("test", index) for index in (0, 2)]
    together = algorithm.evaluate_tasks(params, Episode(*map(torch.stack, zip(*episodes, strict=True))), "test")[0][0]
    for number, episode in enumerate(episodes):
        alone, _ = algorithm.evaluate_tasks(params, Episode(*(tensor[None] for tensor in episode)), "test", number)
        for name, score in alone[0].items():
            assert_close(together[name][number], score[0], rtol=1e-4, atol=1e-5)
