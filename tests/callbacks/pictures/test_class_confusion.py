"""Which class is taken for which, against a count by hand."""

import csv
from collections import Counter

import pytest
import torch
from helpers.small import NETWORKS, Blots, method_for, trainer

from app.episode import Episode
from callbacks.pictures.class_confusion import ClassConfusion


@pytest.mark.parametrize("method", ["MAML", "ProtoNet"])
def test_counts_are_those_of_the_episodes(method, tmp_path):
    data = Blots(ways=3, shots=1, queries=2, meta_batch_size=4, val_episodes=4, test_episodes=10)
    data.setup()
    model = method_for(method, data, backbone=NETWORKS["Conv4_stride"], inner_lr=0.3, inner_steps=1, tasks_per_chunk=3)
    trainer(callbacks=(ClassConfusion(),), default_root_dir=tmp_path).test(model, data, verbose=False)
    episodes, right, wrong = Counter(), Counter(), Counter()
    model.eval()
    names, params = data.class_names("test"), dict(model.named_parameters())
    for index in range(10):
        episode = data.episode("test", index)
        classes = _classes(data, index, episode)
        episodes.update(classes)
        with torch.no_grad():
            (outputs,) = model.query_outputs(params, Episode(*(tensor[None] for tensor in episode)), index)
        predicted = outputs.argmax(-1)
        for true, taken in zip(episode.query_y.tolist(), predicted.tolist(), strict=True):
            counter = right if true == taken else wrong
            counter[classes[true], classes[taken]] += 1
    rows = list(csv.DictReader((tmp_path / "test_classes.csv").read_text().splitlines()))
    assert {row["class"]: int(row["episodes"]) for row in rows} == {names[number]: count for number, count in episodes.items()}
    for row in rows:
        number = names.index(row["class"])
        assert (int(row["queries"]), int(row["correct"])) == (2 * episodes[number], right[number, number])
        assert float(row["accuracy"]) == pytest.approx(int(row["correct"]) / int(row["queries"]), abs=1e-6)
    pairs = list(csv.DictReader((tmp_path / "test_confusions.csv").read_text().splitlines()))
    found = {(names.index(row["class"]), names.index(row["taken for"])): int(row["times"]) for row in pairs}
    assert found == wrong
    assert wrong
    assert all(int(row["times"]) <= int(row["queries with both in the episode"]) for row in pairs)
    assert (tmp_path / "pictures" / "test_confusion_0000000.png").exists()


def _classes(data: Blots, index: int, episode: Episode) -> list[int]:
    """The classes of an episode, by looking for its support images in the split."""
    images, counts = torch.from_numpy(data._splits["test"].images), data._splits["test"].counts
    found = []
    for label in range(3):
        pixels = (episode.support_x[episode.support_y == label][0] * 255).round().to(torch.uint8)
        row = int((images == pixels).flatten(1).all(1).nonzero()[0])
        found.append(row // int(counts[0]))
    return found
