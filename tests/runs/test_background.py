"""Jobs in another thread: in their order, and a failure is told of once."""

import threading

import pytest

from app.runs.background import Background


def test_jobs_are_done_one_after_the_other():
    background, gate, done = Background(), threading.Event(), []
    background.do(gate.wait, 60)
    for number in range(3):
        background.do(lambda number=number: done.append((number, threading.current_thread())))
    assert done == []
    gate.set()
    background.wait()
    assert [number for number, _ in done] == [0, 1, 2]
    assert {thread for _, thread in done} != {threading.current_thread()}


def test_a_failure_is_raised_once_and_ends_nothing():
    background, done = Background(), []
    background.raise_failure()
    background.do([].pop)
    background.do(done.append, 1)
    with pytest.raises(IndexError):
        background.wait()
    assert done == [1]
    background.wait()
    background.do([].pop).exception()
    with pytest.raises(IndexError):
        background.raise_failure()
    background.raise_failure()


def test_what_is_under_way_is_finished_within_a_limit():
    background, gate, done = Background(), threading.Event(), []
    background.do(lambda: (gate.wait(), done.append(1)))
    Background.finish(0.01)
    assert done == []
    threading.Timer(0.05, gate.set).start()
    Background.finish(60.0)
    assert done == [1]
