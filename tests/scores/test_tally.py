"""What is found of chunk after chunk comes out as one table."""

import torch

from app.scores.tally import Tally


def test_rows_are_the_episodes_in_their_order():
    tally = Tally("val", torch.device("cpu"))
    before, after = torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.5, 0.75, 1.0], dtype=torch.float64)
    for first, part in ((4, slice(0, 2)), (6, slice(2, 3))):
        tally.add(first, {stage: {"accuracy": found[part], "loss": -found[part]} for stage, found in ((0, before), (3, after))})
    assert (tally.names, tally.stages, tally.num_episodes) == (["accuracy", "loss"], [0, 3], 3)
    rows = tally.rows()
    assert rows.dtype == torch.float64 and rows.shape == (3, 2, 3)
    assert rows[:, :, 0].tolist() == [[4, 4], [5, 5], [6, 6]]
    assert torch.equal(rows[:, :, 1], torch.stack([before.double(), after], 1)) and torch.equal(rows[..., 2], -rows[..., 1])
    assert tally.calibration is None and Tally("test", torch.device("cpu"), 5).calibration.num_classes == 5
