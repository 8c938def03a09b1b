"""Time limits of the local cluster name what was awaited, also on the command line."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kaito.cli import main as cli
from kaito.local import network
from kaito.local.time_limit import time_limit

pytestmark = pytest.mark.virtual_time


async def test_a_time_limit_names_what_was_awaited() -> None:
    with pytest.raises(TimeoutError, match=r"^waited 30 seconds for the CRDs$"):
        async with time_limit(30, "the CRDs"):
            await asyncio.sleep(31)


async def test_a_body_that_ends_in_time_passes() -> None:
    async with time_limit(30, "the CRDs"):
        await asyncio.sleep(29)


async def test_another_timeout_of_the_body_keeps_its_message() -> None:
    with pytest.raises(TimeoutError, match=r"^connection timed out$"):
        async with time_limit(30, "the CRDs"):
            raise TimeoutError("connection timed out")


async def test_a_program_that_never_listens_is_named_with_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", refused)
    with pytest.raises(TimeoutError, match=r"^waited 120 seconds for arm-simulator to listen on port 5555$"):
        await network.wait_until_listening(5555, "arm-simulator")


@pytest.mark.parametrize(
    ("error", "line"),
    [(TimeoutError(), "kaito: TimeoutError\n"), (RuntimeError("no space left"), "kaito: no space left\n")],
)
def test_the_command_reports_every_error_in_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.close()
        raise error

    monkeypatch.setattr(asyncio, "run", run)
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo"])
    assert (ended.value.code, capsys.readouterr().err) == (1, line)
