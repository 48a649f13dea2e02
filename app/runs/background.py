"""Writing that the training thread does not wait for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakSet


class Background:
    """Does jobs one after the other in a thread of its own; the end of the program waits for them."""

    all: ClassVar[WeakSet["Background"]] = WeakSet()

    def __init__(self):
        self._jobs: list[Future] = []
        self.all.add(self)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1)  # made where it is needed: a thread goes into no other process

    def do(self, job: Callable[..., Any], *args: Any) -> Future:
        """Puts a job behind those that are not yet done."""
        job = self._thread.submit(job, *args)
        self._jobs.append(job)
        return job

    def raise_failure(self) -> None:
        """Raises what the first job that failed had raised, once."""
        done = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if not job.done()]
        for job in done:
            job.result()

    @classmethod
    def finish(cls, seconds: float) -> None:
        """Waits for the jobs of all, at most so long: for a process that is about to end at once."""
        wait([job for one in list(cls.all) for job in one._jobs], timeout=seconds)

    def wait(self) -> None:
        """Returns when all jobs are done.

        Raises:
            Exception: what the first job that failed had raised, and nobody was told.
        """
        for job in self._jobs:
            job.exception()
        self.raise_failure()
