"""Processes of a benchmark end with it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.command_line import ROOT

PARENT = """
import multiprocessing, os, time
from benchmarks.with_parent import end_with_parent
from worker import work
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, end_with_parent) as pool:
        pool.apply_async(work)
        time.sleep(60)
"""
WORKER = """
import os, time
def work():
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def is_running(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc tells whether a process runs")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_ends_in_the_middle_of_its_work_when_its_parent_is_killed(tmp_path, number):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "worker.py").write_text(WORKER)
    command, places = [sys.executable, "parent.py"], {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ | places, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        parent.send_signal(number)
    end = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(worker)
