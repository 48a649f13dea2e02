"""The page of a learner's life."""

import json

import torch

from app.report.life import life_page
from app.runs.learner_file import LEARNER_FORMAT


def test_it_draws_what_this_learner_knew(tmp_path):
    """What another one knew before it was merged stands in the journal, and not in the charts."""
    entry = {"when": "2026-01-01 12:00:00", "did": "learned", "counts": [["<gull>", 5]], "names": 1, "examples": 5, "bytes": 80}
    seen = {"seen": True, "names": ["<gull>"]}
    journal = [
        entry,
        {**entry, "names": 9, "examples": 500, "bytes": 8000, "merged": True, "held_out": {"score": 0.1, "examples": 2}},
        {**entry, "did": "merged", "names": 2, "drift": seen, "held_out": {"score": 0.75, "examples": 8}},
    ]
    task = {"algorithm": "ProtoNet", "task": {"task_type": "classification"}}
    path = tmp_path / "birds.learner"
    content = {"checkpoint": task, "kind": "sums", "ledger": {"journal": json.dumps(journal)}}
    torch.save({"learner_format": LEARNER_FORMAT, **content}, path)
    page = life_page(path)
    assert page.count("<svg") == 4 and "ProtoNet, which keeps sums" in page
    assert "accuracy on held-out examples: 0.75 at 3" in page and "accuracy on held-out examples: 0.1" not in page
    assert "classes: 2 at 3" in page and "classes: 9" not in page and "examples: 500" not in page
    assert "<td>&lt;gull&gt;</td>" in page and "(by another learner)" in page and "0.1 of 2" in page
