"""What the console derives from objects: endpoints, stages, and which Workspace an object concerns."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.api import Machine
from kaito.console.console import LocalParts
from kaito.console.settings import ConsoleSettings
from kaito.console.trouble import Button, TroubleFailed
from kaito.console.views.endpoints import endpoints
from kaito.console.views.waterfall import waterfall
from kaito.diagnosis import Situation, diagnose
from kaito.runtime.kinds import Event, Node, Pod, Service
from kaito.runtime.meta import format_time
from kaito.runtime.testing import World
from test.unit.console.conftest import WRITE, opened, ready, workspace
from test.unit.console.test_board import Browser, Scene, scene as board_scene

scene = board_scene
AT = datetime(2030, 1, 1, tzinfo=UTC)


def later(seconds: float) -> str:
    return format_time(AT + timedelta(seconds=seconds))


def served(spec: dict[str, Any], ingress: Sequence[dict[str, str]] = ()) -> Situation:
    names = {"name": "phi", "namespace": "default"}
    status = {"loadBalancer": {"ingress": list(ingress)}}
    service = Service.model_validate({"metadata": names, "spec": spec, "status": status})
    return Situation(now=AT, workspace=workspace(), services=[service])


@pytest.mark.parametrize(
    ("situation", "direct", "url"),
    [
        (served({"clusterIP": "10.0.0.7"}), None, "http://phi.default.svc"),
        (served({"clusterIP": "127.96.0.7"}), None, "http://127.96.0.7"),
        (served({"clusterIP": "127.96.0.7"}), "http://127.0.0.1:4000", "http://127.0.0.1:4000"),
        (served({"clusterIP": "10.0.0.7"}, [{"ip": "20.1.2.3"}]), None, "http://20.1.2.3"),
        (served({"clusterIP": "10.0.0.7"}, [{"ip": "fd00::1"}]), None, "http://[fd00::1]"),
        (served({"clusterIP": "10.0.0.7"}, [{"hostname": "lb.example"}]), None, "http://lb.example"),
    ],
)
def test_the_endpoint_is_the_nearest_address(situation: Situation, direct: str | None, url: str) -> None:
    found = endpoints(situation, direct)
    assert found is not None
    assert (found["url"], found["openai"]) == (url, f"{url}/v1")
    assert f"{url}/v1/chat/completions" in str(found["curl"])
    assert f'base_url="{url}/v1"' in str(found["python"])


def test_a_pod_template_has_no_openai_routes() -> None:
    template: dict[str, Any] = {"inference": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}}
    situation = served({"clusterIP": "10.0.0.7"})
    found = endpoints(Situation(now=AT, workspace=workspace(**template), services=situation.services), None)
    assert found == {
        "url": "http://phi.default.svc",
        "openai": None,
        "curl": "curl http://phi.default.svc/",
        "python": None,
    }
    assert endpoints(Situation(now=AT, workspace=workspace()), None) is None


def test_the_stages_follow_each_other() -> None:
    made = workspace().with_metadata(creation_timestamp=AT)
    status = ready() | {"conditions": [{**c, "lastTransitionTime": later(90)} for c in ready()["conditions"]]}
    made = made.evolve(status=type(made.status).model_validate(status))
    reached = [
        {"type": name, "status": "True", "reason": "", "lastTransitionTime": later(seconds)}
        for name, seconds in (("MachineLaunched", 30), ("Ready", 40))
    ]
    claim = Machine.model_validate(
        {"metadata": {"name": "m", "creationTimestamp": later(1)}, "status": {"conditions": reached}}
    )
    done = {"exitCode": 0, "startedAt": later(44), "finishedAt": later(60)}
    pod = Pod.model_validate(
        {
            "metadata": {"name": "phi-0", "namespace": "default", "creationTimestamp": later(40)},
            "status": {
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": later(41)},
                    {"type": "Ready", "status": "True", "lastTransitionTime": later(85)},
                ],
                "initContainerStatuses": [{"name": "pull", "state": {"terminated": done}}],
                "containerStatuses": [
                    {
                        "name": "model",
                        "restartCount": 2,
                        "image": "vllm",
                        "state": {"running": {"startedAt": later(61)}},
                    }
                ],
            },
        }
    )
    situation = Situation(now=AT + timedelta(seconds=100), workspace=made, claims=[claim], pods=[pod])
    stages = waterfall(situation, diagnose(situation))
    spans = [(stage["label"], stage["start"], stage["end"]) for stage in stages]
    assert spans == [
        ("claim", later(0), later(1)),
        ("instance", later(1), later(30)),
        ("node", later(30), later(40)),
        ("pod scheduled", later(40), later(41)),
        ("image", later(41), later(44)),
        ("weights", later(44), later(61)),
        ("server start", later(61), later(85)),
        ("ready", later(85), later(90)),
    ]
    assert {stage["state"] for stage in stages} == {"done"}
    assert stages[6]["detail"] == "2 restarts"


async def test_an_event_about_a_pod_concerns_its_workspace(scene: Scene) -> None:
    scene.world.put(workspace())
    labels = {"kaito.sh/workspace": "phi"}
    pod = {"metadata": {"name": "phi-0", "namespace": "default", "labels": labels}}
    spec = {"containers": [{"name": "model", "image": "model"}]}
    scene.world.put(Pod.model_validate(pod | {"spec": spec}))
    browser = Browser()
    scene.read(browser)
    await scene.pass_time(60)
    before = len(browser.events)
    event: dict[str, Any] = {
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2030-01-01T00:01:00.000000Z",
        "reportingController": "kubelet",
        "reportingInstance": "node",
        "action": "Binding",
        "reason": "FailedMount",
        "type": "Warning",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "phi-0"},
        "note": "the volume is missing",
    }
    scene.world.put(Event.model_validate(event))
    await scene.pass_time()
    changes = [data for name, data in browser.events[before:] if name == "change"]
    assert [row["name"] for data in changes for row in data["upserts"]] == ["phi"]


async def test_a_node_that_a_status_names_concerns_the_workspace(scene: Scene, world: World) -> None:
    world.put(workspace())
    scene.status("phi", workerNodes=["byo-1"])
    await scene.pass_time()
    assert [entry.row["nodes"] for entry in scene.board.entries.values()] == [{"wanted": 1, "ready": 0}]
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    node = world.put(Node.model_validate({"metadata": {"name": "byo-1"}}))
    world.put(node.evolve(status=type(node.status).model_validate(status)))
    world.patch(Node, "byo-1", {"status": status}, subresource="status")
    await scene.pass_time()
    assert [entry.row["nodes"] for entry in scene.board.entries.values()] == [{"wanted": 1, "ready": 1}]


class FakeTrouble:
    """Fails for the target `absent`."""

    buttons = (Button(id="quota", label="Quota", explains="No quota."),)

    async def cause(self, button: str, target: str) -> str:
        if target == "absent":
            raise TroubleFailed("there is no such target: choose another")
        return f"{button} {target}"


async def test_trouble_is_caused_where_there_are_buttons() -> None:
    async with AsyncExitStack() as stack:
        settings = ConsoleSettings(mode="local", port=0, allow_writes=True)
        found = await opened(stack, settings, local=LocalParts(trouble=FakeTrouble()))
        session = await found.get("/api/session")
        assert [button["id"] for button in session["trouble"]] == ["quota"]

        async def press(button: str, body: Any) -> tuple[int, Any]:
            async with found.browser.post(f"{found.url}/api/trouble/{button}", json=body, headers=WRITE) as answer:
                return answer.status, await answer.json()

        assert await press("quota", {"target": "default/phi"}) == (200, {"done": "quota default/phi"})
        assert await press("quota", {}) == (200, {"done": "quota "})
        assert (await press("quota", {"target": "absent"}))[0] == 409
        assert (await press("quota", {"target": 1}))[0] == 400
        assert (await press("other", {}))[0] == 404


async def test_pages_are_served_with_types_and_without_a_cookie() -> None:
    async with AsyncExitStack() as stack:
        found = await opened(stack)
        found.browser.cookie_jar.clear()
        for path, kind in (
            ("/", "text/html"),
            ("/app/main.js", "text/javascript"),
            ("/style/icon.svg", "image/svg+xml"),
        ):
            async with found.browser.get(found.url + path) as answer:
                assert (answer.status, answer.content_type) == (200, kind)
                assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        for path in ("/app", "/app/absent.js", "/app/..%2f..%2fserver.py", "/%2e%2e/server.py", "/app/%00"):
            async with found.browser.get(found.url + path) as answer:
                assert answer.status == 404
