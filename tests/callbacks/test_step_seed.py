"""The random numbers of a step follow from the run's seed and the step alone."""

import random
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import torch

from callbacks import step_seed
from callbacks.step_seed import StepSeed


def test_a_step_draws_what_torch_numpy_and_python_draw_from_its_seed(monkeypatch):
    monkeypatch.setattr(step_seed, "set_logged_step", lambda trainer, step: None)
    trainer = SimpleNamespace(datamodule=SimpleNamespace(cursor=7))
    StepSeed(3).on_train_batch_start(trainer, None, None, 0)
    drawn = torch.rand(4), torch.randn(4), np.random.rand(), random.random()
    seed = int.from_bytes(sha256(b"3:7").digest()[:4], "big")
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    assert torch.equal(drawn[0], torch.rand(4)) and torch.equal(drawn[1], torch.randn(4))
    assert drawn[2:] == (np.random.rand(), random.random())
