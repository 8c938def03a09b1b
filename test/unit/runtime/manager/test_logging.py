"""Logs: JSON without any set-up, the reconcile's identity in every line, libraries in the same form."""

import asyncio
import json
import logging
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.logging import configure, get_logger, reconcile_context
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World


@pytest.fixture(autouse=True)
def restored() -> Generator[None]:
    """The process's logging as it was."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers, root.level = handlers, level
    structlog.configure(**config)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_lines_of_a_test_carry_the_moment_of_its_cluster(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.advance(90)
    get_logger("test").info("later")
    [line] = lines(capsys)
    assert line["ts"] == "2030-01-01T00:01:30.000000Z"


def test_the_time_is_the_machines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    get_logger("test").info("now")
    [line] = lines(capsys)
    assert before <= datetime.fromisoformat(line["ts"]) <= datetime.now(UTC)


def test_a_line_is_json_with_time_level_text_and_logger_first(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("test.module", fixed=1).info("node claim created", node_claim="x")
    [line] = lines(capsys)
    assert list(line)[:3] == ["ts", "level", "msg"]
    assert line["msg"] == "node claim created"
    assert (line["level"], line["logger"], line["fixed"], line["node_claim"]) == ("info", "test.module", 1, "x")


def test_the_level_is_honored_and_libraries_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "warning")
    get_logger("a").info("dropped")
    get_logger("a").warning("kept")
    logging.getLogger("some.library").warning("disk is %s", "full")
    logging.getLogger("some.library").info("dropped")
    first, second = lines(capsys)
    assert first["msg"] == "kept"
    assert (second["msg"], second["level"], second["logger"]) == ("disk is full", "warning", "some.library")


def test_debug_and_console(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console", "debug")
    get_logger("a").debug("details", key="value")
    text = capsys.readouterr().err
    assert "details" in text
    assert "key=value" in text


def test_failures_carry_their_stack(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger("a").exception("failed")
    [line] = lines(capsys)
    assert "ValueError: boom" in line["exception"]


def test_the_context_covers_a_body_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger("a")
    with reconcile_context("c", "Deployment", ObjectKey("ns", "n"), group="apps") as run_id:
        log.info("inside")
    with reconcile_context("periodic", "", "periodic"):
        log.info("tick")
    log.info("outside")
    inside, tick, outside = lines(capsys)
    identity = {
        "controller": "c",
        "controllerGroup": "apps",
        "controllerKind": "Deployment",
        "Deployment": {"namespace": "ns", "name": "n"},
        "namespace": "ns",
        "name": "n",
        "reconcileID": run_id,
    }
    assert identity.items() <= inside.items()
    assert tick["name"] == "periodic"
    assert "controllerKind" not in tick
    assert "controller" not in outside


async def test_lines_of_tasks_started_by_a_reconcile_carry_its_identity(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    log = get_logger("deep.inside")

    async def deep() -> None:
        log.info("deep")

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        async with asyncio.TaskGroup() as group:
            group.create_task(deep())
        request.log.info("done")
        return None

    for name in ("a", "b"):
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    async with world.manager(Controller(ConfigMap, reconcile, workers=2)):
        await world.settle()
    records = [line for line in lines(capsys) if line["msg"] in {"deep", "done"}]
    assert sorted((line["msg"], line["namespace"], line["name"]) for line in records) == [
        ("deep", "default", "a"),
        ("deep", "default", "b"),
        ("done", "default", "a"),
        ("done", "default", "b"),
    ]
    assert len({line["reconcileID"] for line in records}) == 2
