"""What the scores of all episodes come to: overall, in each group, and beside what other predictors reach."""

from typing import Any

import torch
from torch import Tensor

from app.scores.episode_scores import mean_and_ci95
from datamodules.base.episodic import EpisodicDataModule

Summary = dict[str, Any]


def summarise(rows: Tensor, names: list[str], data: EpisodicDataModule, split: str, with_references: bool = False) -> Summary:
    """Mean and 95 % confidence interval of every score, with the number of episodes.

    Returns:
        `num_episodes`, `scores` {name: {"mean", "ci95": of each stage}} and `references` {predictor: {name: {"mean", "ci95",
        "difference_mean", "difference_ci95"}}}, where the difference is that of each episode, the algorithm's score after the
        adaptation minus the predictor's; in `test` also `groups`, the same for each group of episodes alone.

    Args:
        rows: of shape (episodes, stages, 1 + scores); the first column is the number of the episode.
        names: of the scores.
        data: says what is known of the episodes.
        split: val or test.
        with_references: whether the other predictors are scored, which takes time.
    """
    rows = rows.cpu()
    episodes = rows[:, 0, 0].long().tolist()
    clusters = torch.tensor([data.cluster(split, index) for index in episodes])
    references = [data.references(split, index) for index in episodes] if with_references else [{}]

    def part(chosen: list[int]) -> Summary:
        def reference(predictor: str, name: str) -> dict[str, float]:
            values = torch.tensor([references[position][predictor][name] for position in chosen], dtype=torch.float64)
            found = {"": values}
            if name in names:
                found["difference_"] = rows[chosen, -1, 1 + names.index(name)] - values
            statistics = {key: mean_and_ci95(numbers, clusters[chosen]) for key, numbers in found.items()}
            return {
                f"{key}{kind}": pair[at].item() for key, pair in statistics.items() for at, kind in enumerate(("mean", "ci95"))
            }

        mean, ci95 = (values.T.tolist() for values in mean_and_ci95(rows[chosen, :, 1:], clusters[chosen]))
        return {
            "num_episodes": len(chosen),
            "scores": {name: {"mean": mean[column], "ci95": ci95[column]} for column, name in enumerate(names)},
            "references": {
                predictor: {name: reference(predictor, name) for name in scores} for predictor, scores in references[0].items()
            },
        }

    summary = part(list(range(len(episodes))))
    if split == "test" and data.test_groups:
        members = {group: [] for group in data.test_groups}
        for position, index in enumerate(episodes):
            members[data.group(split, index)].append(position)
        summary["groups"] = {group: part(chosen) for group, chosen in members.items() if chosen}
    return summary


def logged(summary: Summary, split: str, main: str) -> dict[str, float]:
    """What goes to the loggers: every score after the adaptation, the main one with its interval and before, by groups too."""
    values = {f"{split}/{name}": score["mean"][-1] for name, score in summary["scores"].items()}
    score = summary["scores"][main]
    values[f"{split}/{main}_ci95"] = score["ci95"][-1]
    if len(score["mean"]) > 1:
        values[f"{split}/{main}_before"] = score["mean"][0]
    for group, part in summary.get("groups", {}).items():
        values |= {f"{split}/{name}_{group}": score["mean"][-1] for name, score in part["scores"].items() if name != "loss"}
        values[f"{split}/{main}_{group}_ci95"] = part["scores"][main]["ci95"][-1]
    return values
