"""Times of several days become one table."""

import json

import pytest

from benchmarks import throughput
from benchmarks.speed_days import AS_ITS_USERS_RUN_IT, add_run, cores_elsewhere

MACHINE = {"device": "a processor", "cores": 2, "load": 0.0}


def rows(ours: float, theirs: float) -> list[dict]:
    """Of one shape, from milliseconds."""
    times = {"ours": ours, "learn2learn": theirs, AS_ITS_USERS_RUN_IT: 2 * theirs}
    return [{"shape": "a second order, 32", "by": by, "steps/s": 1e3 / ms} for by, ms in times.items()]


def test_the_median_and_the_spread_of_the_runs_of_such_a_machine(tmp_path):
    for ours, theirs in ((100, 300), (120, 240), (110, 275)):
        add_run(MACHINE, rows(ours, theirs), tmp_path)
    add_run(MACHINE | {"device": "another"}, rows(1, 1), tmp_path)
    path = add_run(MACHINE, rows(130, 390), tmp_path)
    _, where, table, elsewhere, other_table, _ = json.loads(path.read_text())["content"]
    assert where["text"].startswith("2 cores of a processor; runs: 4, on ")
    assert elsewhere["text"].startswith("2 cores of another; runs: 1, on ") and len(other_table["rows"]) == 3
    assert table["rows"] == [
        ["a second order, 32", "ours", "115.0 [100.0, 130.0]", "2.8 [2.0, 3.0]", "5.5 [4.0, 6.0]"],
        ["a second order, 32", "learn2learn", "287.5 [240.0, 390.0]", "", "2.0 [2.0, 2.0]"],
        ["a second order, 32", AS_ITS_USERS_RUN_IT, "575.0 [480.0, 780.0]", "0.5 [0.5, 0.5]", ""],
    ]
    assert len(json.loads(path.read_text())["runs"]) == 5


def test_a_busy_machine_is_not_recorded(monkeypatch, capsys):
    assert 0 <= cores_elsewhere(0.05) < 1000
    monkeypatch.setattr(throughput, "cores_elsewhere", lambda: 1.5)
    with pytest.raises(SystemExit):
        throughput.main(["--record"])
    assert "other programs keep 1.5 cores busy" in capsys.readouterr().err
