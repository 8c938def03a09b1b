"""`kaito cost` and `kaito top`: rows, orders, load of servers, orphans, idle Workspaces, permissions."""

import argparse
import asyncio
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import yaml

from kaito.api import Machine, Workspace, crds, labels
from kaito.cli.fleet.command import refresh
from kaito.cli.fleet.cost import format_cost
from kaito.cli.fleet.load import Load, LoadReader, parse_load
from kaito.cli.fleet.reader import Fleet, FleetReader, Row, sorted_rows
from kaito.cli.fleet.top import CLEAR, format_top
from kaito.cli.main import main, parser
from kaito.cli.table import Cell, Column, table
from kaito.planning.style import Style
from kaito.runtime.client import Client
from kaito.runtime.client.transport import Reply
from kaito.runtime.errors import TransportError
from kaito.runtime.kinds import Pod
from kaito.runtime.testing import World, builders

NOW = datetime(2030, 1, 2, tzinfo=UTC)
SIZE = "Standard_NC24ads_A100_v4"

TRANSFORMERS = """
# HELP kaito_generation_in_flight Sequences in the batch.
kaito_generation_in_flight 3.0
kaito_generation_queue_length 2.0
kaito_last_request_timestamp_seconds 1.8934559e+09
kaito_http_requests_total{code="200",route="/v1/chat/completions"} 7.0
"""
VLLM = """
vllm:num_requests_running{engine="0",model_name="a } b"} 4.0
vllm:num_requests_waiting{engine="0",model_name="a } b"} 5.0
kaito_generation_in_flight 9.0
broken_line
vllm:num_requests_running{engine="1"} nonsense
"""


def row(name: str, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "tuning": False,
        "state": "Ready",
        "copies": 1,
        "ready": 1,
        "nodes": 1,
        "instance_type": SIZE,
        "currency": "USD",
        "per_hour": Decimal("3.673"),
        "idle_per_hour": Decimal(0),
        "total": Decimal("1234.5"),
        "node_hours": Decimal("336.1"),
        "created": NOW - timedelta(days=2),
    }
    return Row(**values | changes)


def fleet(*rows: Row, **changes: Any) -> Fleet:
    values: dict[str, Any] = {"now": NOW, "rows": rows, "orphan_rates": {}}
    return Fleet(**values | changes)


def arguments(*flags: str) -> argparse.Namespace:
    return parser().parse_args(["cost", *flags])


def test_metrics_of_both_runtimes() -> None:
    last = datetime.fromtimestamp(1.8934559e9, UTC)
    assert parse_load(TRANSFORMERS.encode()) == Load(running=3, waiting=2, last_request=last)
    assert parse_load(VLLM.encode()) == Load(running=4, waiting=5)
    assert parse_load(b"") == Load()
    assert parse_load(b"kaito_generation_in_flight 1e999") is None, "not a number of requests"


def test_orders() -> None:
    rows = [row("b", per_hour=None), row("a", per_hour=Decimal(1)), row("c", per_hour=Decimal(9), state="Failed")]
    assert [each.name for each in sorted_rows(rows, "price")] == ["c", "a", "b"]
    assert [each.name for each in sorted_rows(rows, "name")] == ["a", "b", "c"]
    assert [each.name for each in sorted_rows(rows, "name", reverse=True)] == ["c", "b", "a"]
    assert [each.name for each in sorted_rows(rows, "state")] == ["c", "a", "b"]
    assert [each.name for each in sorted_rows(rows, "waiting")] == ["a", "b", "c"]


def test_a_table_aligns_numbers_to_the_right() -> None:
    text = table((Column("NAME"), Column("N", right=True)), [[Cell("long name"), Cell("1")]], Style())
    assert text == "NAME       N\nlong name  1\n"
    assert "\033" in table((Column("A"),), [[Cell("x", "red")]], Style(colors=True))


def test_text_of_cost_with_sums_and_remarks() -> None:
    old = Load(last_request=NOW - timedelta(hours=5))
    wasted = {"idle_per_hour": Decimal("3.673"), "idle_reason": "not-serving"}
    rows = (
        row("idle", load=old),
        row("busy", load=Load(running=1, last_request=NOW - timedelta(hours=5))),
        row("broken", state="NotReady", ready=0, **wasted),
        row("odd", per_hour=None, idle_per_hour=None, total=None, currency=""),
    )
    found = fleet(
        *rows, orphans=["Machine ws1"], orphan_rates={"USD": Decimal(2)}, notes=["nodes could not be read: no"]
    )
    lines = format_cost(found, arguments(), Style()).splitlines()
    assert lines[0].split() == [
        "NAMESPACE", "NAME", "STATE", "INSTANCE", "NODES", "PER", "HOUR", "IDLE", "PER", "HOUR", "TOTAL", "NODE",
        "HOURS", "AGE",
    ]  # fmt: skip
    assert lines[5].split() == ["sum", "3", "11.02", "USD", "3.67", "USD", "3,703.50", "USD"]
    (unknown,) = [line for line in lines if " odd " in line]
    assert unknown.split() == ["default", "odd", "Ready", SIZE, "1", "-", "-", "-", "336.1", "2", "d"]
    text = "\n".join(lines)
    assert "idle: default/broken costs 3.67 USD per hour, and the model does not answer: kaito explain broken" in text
    assert "idle: default/idle has had no request for 5 h, and costs 2,681.29 USD per month: kubectl -n default" in text
    assert "default/busy has had" not in text
    assert "idle: 1 claims without a Workspace (Machine ws1) cost 2.00 USD per hour" in text
    assert "the price of default/odd is unknown" in text
    assert lines[-1] == "note: nodes could not be read: no"
    assert "has had no request" not in format_cost(found, arguments("--idle-after=6h"), Style())
    assert format_cost(fleet(), arguments(), Style()) == "no Workspaces\n"


def test_the_workspaces_of_a_set_are_summed() -> None:
    rows = (row("phi-0", inference_set="phi"), row("phi-1", inference_set="phi"), row("other"))
    lines = format_cost(fleet(*rows), arguments("--sort=name"), Style()).splitlines()
    assert lines[4].split() == ["default", "set", "phi", "2", "7.35", "USD", "0", "USD", "2,469.00", "USD"]
    assert lines[5].split()[:4] == ["sum", "3", "11.02", "USD"]
    data = json.loads(format_cost(fleet(*rows), arguments("-o", "json"), Style()))
    assert data["inferenceSets"] == [
        {
            "namespace": "default", "name": "phi", "workspaces": 2, "nodes": 2, "currency": "USD", "perHour": 7.346,
            "total": 2469.0,
        }
    ]  # fmt: skip
    assert [each.get("inferenceSet") for each in data["workspaces"]].count("phi") == 2
    unknown = fleet(row("phi-0", inference_set="phi"), row("phi-1", inference_set="phi", per_hour=None))
    (only,) = json.loads(format_cost(unknown, arguments("-o", "json"), Style()))["inferenceSets"]
    assert "perHour" not in only, "a part of the cost is not the cost"


def test_data_of_cost() -> None:
    found = fleet(row("a", load=Load(running=1, waiting=2)), row("b", per_hour=None, currency=""))
    data = json.loads(format_cost(found, arguments("-o", "json"), Style()))
    first, second = data["workspaces"]
    assert (first["perHour"], first["total"], first["waitingRequests"]) == (3.673, 1234.5, 2)
    assert not {"perHour", "currency", "runningRequests", "withoutRequests"} & second.keys()
    assert yaml.safe_load(format_cost(found, arguments("-o", "yaml"), Style())) == data


def test_text_of_top() -> None:
    found = fleet(row("a", load=Load(running=1, waiting=2, last_request=NOW)), row("t", tuning=True, state="Running"))
    lines = format_top(found, Style(), key="waiting").splitlines()
    assert lines[0] == "00:00:00Z, 2 Workspaces, 2 nodes, 7.35 USD per hour, 1 requests running, 2 waiting"
    unread = format_top(fleet(row("a")), Style(), key="name").splitlines()
    assert unread[0] == "00:00:00Z, 1 Workspaces, 1 nodes, 3.67 USD per hour", "what is not known is not 0"
    assert lines[3].split() == ["default", "a", "Ready", "1/1", "1", "3.67", "USD", "1", "2", "0", "s", "ago"]
    assert lines[4].split() == ["default", "t", "Running", "-", "1", "3.67", "USD", "-", "-", "-"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["cost", "-A", "-n", "x"], "exclude each other"),
        (["top", "--interval=0.1"], "--interval is 0.1"),
        (["top", "--interval=nan"], "--interval is nan"),
        (["cost", "--idle-after=soon"], "'soon' is not a duration"),
        (["cost", "--sort=beauty"], "invalid choice: 'beauty'"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


async def test_a_failed_read_does_not_end_top() -> None:
    answers: list[str | BaseException] = ["first\n", TransportError("no route"), "third\n", asyncio.CancelledError()]

    async def read() -> str:
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    out = io.StringIO()
    with pytest.raises(asyncio.CancelledError):
        await refresh(read, out, 0.0)
    assert out.getvalue().split(CLEAR) == [
        "",
        "first\nthe cluster cannot be read, next attempt in 0 s: no route\n",
        "first\n",
        "third\n",
    ]
    answers = [TransportError("no route")]
    with pytest.raises(TransportError):
        await refresh(read, out, 0.0)


class Pods:
    """A transport whose pods answer with these metrics."""

    def __init__(self, answers: Mapping[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.paths: list[str] = []

    async def request(self, _: str, path: str, **__: Any) -> Reply:
        self.paths.append(path)
        pod = path.split("/pods/http:")[1].partition(":")[0]
        status, text = self.answers[pod]
        return Reply(status, {}, text.encode())


def pod(name: str, workspace: str, **more: str) -> Pod:
    return builders.pod(name, labels={labels.WORKSPACE: workspace, **more})


async def test_the_load_of_the_pods_of_a_workspace_is_added() -> None:
    reader = LoadReader(Pods({"a-0": (200, TRANSFORMERS), "a-1": (200, VLLM), "b-0": (500, "")}))  # type: ignore[arg-type]  # only requests are sent
    pods = [
        pod("a-0", "a"),
        pod("a-1", "a"),
        pod("a-worker-0", "a", **{labels.GROUP_ROLE: labels.WORKER}),
        pod("b-0", "b"),
    ]
    assert await reader.read(pods) == {("default", "a"): Load(running=7, waiting=7)}
    assert reader.problem == "pod default/b-0: HTTP 500"


async def test_a_malformed_metric_makes_the_load_unknown() -> None:
    reader = LoadReader(Pods({"a-0": (200, "vllm:num_requests_running 1e999\n")}))  # type: ignore[arg-type]  # only requests are sent
    assert await reader.read([pod("a-0", "a")]) == {}
    assert reader.problem == "pod default/a-0: a metric has a malformed value"


async def test_without_permission_for_the_proxy_the_load_is_unknown() -> None:
    reader = LoadReader(Pods({"a-0": (403, "")}))  # type: ignore[arg-type]  # only requests are sent
    assert await reader.read([pod("a-0", "a")]) == {}
    assert reader.problem == "your account needs the permission to get pods/proxy"


def workspace(name: str, namespace: str = "default") -> Workspace:
    return Workspace.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace},
            "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": name}}},
            "inference": {"preset": {"name": "phi-4"}},
        }
    )


def machine(name: str, owner: str) -> Machine:
    document = {
        "metadata": {"name": name, "labels": {labels.WORKSPACE: owner, labels.WORKSPACE_NAMESPACE: "default"}},
        "spec": {
            "machineTemplateRef": {"name": name},
            "requirements": [{"key": labels.INSTANCE_TYPE, "operator": "In", "values": [SIZE]}],
        },
    }
    return Machine.model_validate(document)


async def test_rows_of_a_cluster(world: World) -> None:
    world.install(*crds.manifests())
    world.put(workspace("recorded"))
    since = (world.now - timedelta(hours=4)).isoformat()
    cost = {
        "currency": "USD",
        "perHour": "2",
        "total": "8",
        "nodeHours": "0.5",
        "updatedAt": since,
        "nodes": [{"name": "ws1", "since": since, "perHour": "2"}],
    }
    status = {"state": "Ready", "replicas": 1, "readyReplicas": 1, "targetNodeCount": 1, "cost": cost}
    world.patch(Workspace, "recorded", {"status": status}, subresource="status")
    world.put(workspace("upstream"))
    for name, owner in (("ws2", "upstream"), ("ws3", "deleted")):
        world.put(machine(name, owner))
        world.patch(Machine, name, {"status": {"providerID": f"azure:///{name}"}}, subresource="status")
    world.put(machine("ws4", "deleted"))  # no instance yet: costs nothing

    reader = FleetReader(Client(world.transport(), field_manager="test"), None, region="eastus")
    found = await reader.read("", world.now)
    recorded, upstream = sorted_rows(found.rows, "name")
    assert (recorded.per_hour, recorded.idle_per_hour, recorded.total) == (Decimal(2), Decimal(0), Decimal(8))
    assert recorded.node_hours == Decimal(4), "until now, not until the last write"
    assert (upstream.per_hour, upstream.total, upstream.idle_per_hour) == (Decimal("3.673"), None, None)
    assert upstream.state == "Unknown"
    assert (found.orphans, found.orphan_rates) == (["Machine ws3"], {"USD": Decimal("3.673")})
    assert (await reader.read("default", world.now)).orphans == [], "other namespaces were not read"


async def test_what_may_not_be_read_is_a_note(world: World) -> None:
    world.install(*crds.manifests())
    world.put(workspace("a"))
    world.deny(("get", "list"), Machine)
    found = await FleetReader(Client(world.transport(), field_manager="test"), None).read("", world.now)
    assert [each.name for each in found.rows] == ["a"]
    assert [note.partition(":")[0] for note in found.notes] == ["claims could not be read"]
