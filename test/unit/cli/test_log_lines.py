"""Log events of a command are lines for people on standard error."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from kaito.cli import log_lines


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    log_lines.configure()
    yield
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


def test_warnings_of_the_api_server_read_as_those_of_kubectl(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("kaito.runtime.client.sender").warning("api server warning", warning="1 node for $2.10/h")
    assert capsys.readouterr() == ("", "Warning: 1 node for $2.10/h\n")


def test_events_have_their_details_and_no_timestamp(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("kaito.runtime.client")
    log.info("connected")
    log.warning("token file unreadable", path="/token", error="no such file")
    log.warning("event loop is blocked", blocked_seconds=1.2, stack="File ...")
    log.error("stopped")
    assert capsys.readouterr() == (
        "",
        (
            "Warning: token file unreadable (path: /token, error: no such file)\n"
            "Warning: event loop is blocked (blocked_seconds: 1.2)\nError: stopped\n"
        ),
    )


def test_libraries_that_use_logging_write_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("aiohttp").info("quiet")
    logging.getLogger("aiohttp").warning("slow")
    out, err = capsys.readouterr()
    assert out == ""
    assert "slow" in err
    assert "quiet" not in err
