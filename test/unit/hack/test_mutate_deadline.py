"""The time limits of a mutant's tests: other programs on the machine do not end a test."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.mutate import deadline
from hack.mutate.deadline import Deadline, queued_seconds


class Machine:
    """A clock, the queue for processors, and the timers and signals of the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.queued = 1000.0, 70.0
        self.timers: list[tuple[int, float]] = []
        self.killed: list[int] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(deadline, "queued_seconds", lambda: self.queued)
        monkeypatch.setattr(signal, "setitimer", self._set)
        monkeypatch.setattr(os, "kill", self._kill)

    def _set(self, timer: int, seconds: float) -> None:
        self.timers.append((timer, seconds))

    def _kill(self, _: int, number: int) -> None:
        self.killed.append(number)

    def ring(self) -> None:
        """Delivers SIGALRM."""
        handler = signal.getsignal(signal.SIGALRM)
        assert callable(handler)
        handler(signal.SIGALRM, None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before = signal.getsignal(signal.SIGALRM)
    yield Machine(monkeypatch)
    signal.signal(signal.SIGALRM, before)


def test_processor_time_and_time_on_the_clock_are_limited(machine: Machine) -> None:
    Deadline().start(processor_seconds=4, clock_seconds=30)
    assert machine.timers == [(signal.ITIMER_PROF, 4), (signal.ITIMER_REAL, 30)]
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL


def test_a_test_that_hangs_is_ended(machine: Machine) -> None:
    Deadline().start(processor_seconds=4, clock_seconds=30)
    machine.now += 30
    machine.ring()
    assert machine.killed == [signal.SIGALRM]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_time_in_the_queue_does_not_count(machine: Machine) -> None:
    Deadline().start(processor_seconds=4, clock_seconds=30)
    machine.now, machine.queued = machine.now + 30, machine.queued + 25
    machine.ring()
    assert (machine.killed, machine.timers[-1]) == ([], (signal.ITIMER_REAL, 25))
    machine.now, machine.queued = machine.now + 25, machine.queued + 24.95
    machine.ring()
    timer, seconds = machine.timers[-1]
    assert (machine.killed, timer) == ([], signal.ITIMER_REAL)
    assert seconds == pytest.approx(24.95)
    machine.now += 24.95
    machine.ring()
    assert machine.killed == [signal.SIGALRM]


def test_the_queue_of_this_process_is_read() -> None:
    assert 0 <= queued_seconds() < time.monotonic()


def test_a_system_without_the_file_reports_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_SCHEDSTAT", Path("absent"))
    assert queued_seconds() == 0
