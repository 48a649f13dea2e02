"""With blocks of fixed size an outer step has the same bits in float32 on any number of processes."""

import pytest
import torch
from helpers.command_line import QUIET, SINUSOID, fork, train
from helpers.ddp_worker import BLOCKS, run, work_in_blocks
from helpers.processes import end, free_port, last, output, start_pair

from app.learners.outcome import Outcome, mean_of_blocks


def test_the_mean_is_that_of_all_blocks():
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 3, 7):
        blocks = [
            Outcome({"w": torch.randn(2, 3, generator=generator)}, {"loss": torch.randn((), generator=generator).double()}, {})
            for _ in range(count)
        ]
        mean = mean_of_blocks(blocks)
        torch.testing.assert_close(mean.gradient["w"], torch.stack([block.gradient["w"] for block in blocks]).mean(0))
        torch.testing.assert_close(mean.metrics["loss"], torch.stack([block.metrics["loss"] for block in blocks]).mean())
        assert mean.metrics["loss"].dtype == torch.float64 and mean.statistics == {}


@pytest.fixture(scope="module")
def of_four(tmp_path_factory):
    """What four processes wrote."""
    folder, port = tmp_path_factory.mktemp("blocks"), free_port()
    processes = [fork(work_in_blocks, rank, 4, port, folder) for rank in range(4)]
    assert end(processes) == [0] * 4, "".join(log.read_text() for log in folder.glob("*.log"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case.name)
def test_four_processes_are_one(case, of_four):
    one = run(case)
    for rank in range(4):
        other = torch.load(of_four / f"{case.name}.{rank}.pt", weights_only=False)
        for name, tensor in one["state"].items():
            assert torch.equal(other["state"][name], tensor), name
        assert len(other["outer"]) == len(one["outer"]) and all(map(torch.equal, other["outer"], one["outer"]))
        assert torch.equal(other["scores"], one["scores"])
        assert other["evaluation"].get("calibration") == one["evaluation"].get("calibration")


@pytest.mark.slow
def test_a_run_that_changes_its_number_of_processes(tmp_path):
    options = ["--model.block_size=5", "--data.meta_batch_size=10", "--data.val_episodes=8", "--trainer.val_check_interval=2"]
    one, many = tmp_path / "one", tmp_path / "many"
    alone = ["fit", *SINUSOID, *QUIET, "--model.inner_lr=0.01", *options]
    assert train(*alone, "--trainer.max_steps=6", f"--trainer.default_root_dir={one}").status == 0
    assert train(*alone, "--trainer.max_steps=2", f"--trainer.default_root_dir={many}").status == 0
    pair = start_pair(*options, "--trainer.max_steps=4", "--ckpt_path=last", folder=many)
    assert end(pair) == [0, 0], output(many)
    assert train(*alone, "--trainer.max_steps=6", "--ckpt_path=last", f"--trainer.default_root_dir={many}").status == 0
    expected, found = last(one), last(many)
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name
    for number, state in expected["optimizer_states"][0]["state"].items():
        assert all(torch.equal(found["optimizer_states"][0]["state"][number][name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.meta_batch_size=10", "--model.block_size=4"], "--model.block_size 4 does not divide --data.meta_batch_size 10"),
        (["--model.block_size=0"], "--model.block_size is 0"),
        (
            ["--data.meta_batch_size=4", "--model.block_size=4", "--trainer.devices=2", "--trainer.strategy=ddp"],
            "--data.meta_batch_size 4 in blocks of --model.block_size 4 is not divisible by 2 processes; make it 8",
        ),
    ],
)
def test_blocks_that_do_not_go_into_a_step(options, words, tmp_path):
    refused = train("fit", *SINUSOID, *QUIET, *options, f"--trainer.default_root_dir={tmp_path}")
    assert refused.status == 1 and words in refused.err and len(refused.err.splitlines()) == 1


def test_statistics_of_a_whole_step_cannot_be_cut_into_blocks(tmp_path):
    options = ["--model=ProtoNet", "--data=Glyphs", "--model.norm_statistics=step", "--model.block_size=2"]
    refused = train("fit", *options, *QUIET, f"--trainer.default_root_dir={tmp_path}")
    assert refused.status == 1 and "--model.norm_statistics step takes the statistics of a whole step" in refused.err
