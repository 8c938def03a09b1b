"""A container's process, seen through its status: exit codes, restarts, last words, what cannot start."""

import asyncio
from pathlib import Path

from kaito.local.kubelet.container import ContainerWorker
from kaito.local.kubelet.images import Launch, NoLocalProgram
from kaito.runtime.clock import SystemClock
from kaito.runtime.kinds import Container
from kaito.runtime.tasks import TaskScope


class Changes:
    """Wakes tasks that wait for a status."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


def worker(tmp_path: Path, script: str, changes: Changes, *, local_program: bool = True) -> ContainerWorker:
    async def launch(command: list[str] | None) -> Launch:
        if not local_program:
            raise NoLocalProgram("no such image")
        return Launch(tuple(command or ["/bin/sh", "-c", script]), {"PATH": "/usr/bin:/bin"}, tmp_path)

    return ContainerWorker(
        Container(name="c", image="local/x"),
        ip="127.0.0.1",
        log=tmp_path / "c.log",
        clock=SystemClock(),
        launch=launch,
        changed=changes,
    )


async def test_a_container_that_may_not_restart_ends_with_its_code_and_last_words(tmp_path: Path) -> None:
    container = worker(tmp_path, "echo out of luck; exit 3", Changes())
    assert await container.run("Never") == 3
    ended = container.status().state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason, ended.message) == (3, "Error", "out of luck")


async def test_success_is_completed_without_a_message(tmp_path: Path) -> None:
    container = worker(tmp_path, "echo fine", Changes())
    assert await container.run("OnFailure") == 0
    ended = container.status().state.terminated
    assert ended is not None
    assert (ended.reason, ended.message) == ("Completed", "")


async def test_a_crashing_container_is_restarted_after_a_back_off(tmp_path: Path) -> None:
    changes = Changes()
    container = worker(tmp_path, "exit 1", changes)
    async with TaskScope("test") as scope:
        scope.spawn(container.run("Always"), name="container")
        while container.status().restart_count < 1:
            await changes.wait()
        status = container.status()
        assert status.state.waiting is not None
        assert status.state.waiting.reason == "CrashLoopBackOff"
        assert status.last_state.terminated is not None
        assert status.last_state.terminated.exit_code == 1


async def test_an_image_nobody_has_is_an_image_pull_error(tmp_path: Path) -> None:
    changes = Changes()
    container = worker(tmp_path, "", changes, local_program=False)
    async with TaskScope("test") as scope:
        scope.spawn(container.run("Always"), name="container")
        await changes.wait()
        waiting = container.status().state.waiting
        assert waiting is not None
        assert (waiting.reason, waiting.message) == ("ErrImagePull", "no such image")


async def test_stopping_ends_the_whole_process_group(tmp_path: Path) -> None:
    changes = Changes()
    container = worker(tmp_path, "sleep 60 & sleep 60", changes)
    async with TaskScope("test") as scope:
        running = scope.spawn(container.run("Always"), name="container")
        while not container.is_ready:
            await changes.wait()
        await container.stop(5)
        assert await running == 128 + 15
