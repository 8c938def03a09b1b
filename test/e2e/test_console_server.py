"""`kaito console` as a process against a real kube-apiserver: events, writes, a restart, and the rights of users."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from hack.envtest import ControlPlane
from hack.generate import rbac
from kaito.api import crds

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parents[2]
WRITE = {"X-Kaito-Console": "1"}
DRAFT = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi, namespace: red}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {apps: phi}}}
inference: {preset: {name: phi-3-mini-4k-instruct}}
"""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        for document in crds.manifests():
            kubectl(plane, "apply", "-f", "-", stdin=json.dumps(document))
        kubectl(plane, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for name in ("kaito-system", "red", "blue"):
            kubectl(plane, "create", "namespace", name)
        yield plane


def kubectl(plane: ControlPlane, *arguments: str, stdin: str = "") -> str:
    command = ["kubectl", f"--kubeconfig={plane.kubeconfig}", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=90)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@asynccontextmanager
async def console(kubeconfig: Path, *flags: str) -> AsyncGenerator[str]:
    """Runs the process; yields the link that it prints."""
    script = "import sys; from kaito.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "console", f"--kubeconfig={kubeconfig}", "--port=0", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        assert found is not None, line
        yield found[0]
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Events:
    """A stream of events that is read until something is true."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.rows: dict[str, Any] = {}

    async def until(self, name: str, key: str = "") -> Any:
        """Reads until an event of a name, with a row or a deletion of that key if one is given."""
        async with asyncio.timeout(60):
            async for event, data in self._read():
                for row in data.get("workspaces", data.get("upserts", [])):
                    self.rows[f"{row['namespace']}/{row['name']}"] = row
                for gone in data.get("deletes", []):
                    self.rows.pop(gone, None)
                changed = [f"{r['namespace']}/{r['name']}" for r in data.get("upserts", data.get("workspaces", []))]
                if event == name and (not key or key in [*changed, *data.get("deletes", [])]):
                    return data
        raise AssertionError(name)

    async def _read(self) -> AsyncGenerator[tuple[str, Any]]:
        event = ""
        while line := await self._response.content.readline():
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                event = text.removeprefix("event: ")
            elif text.startswith("data: "):
                yield event, json.loads(text.removeprefix("data: "))


async def test_a_workspace_lives_in_the_console_and_the_api_server_restarts(plane: ControlPlane) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        console(plane.kubeconfig, "--allow-writes") as link,
        aiohttp.ClientSession(cookie_jar=jar, headers=WRITE) as browser,
    ):
        url = link.partition("/?")[0]
        async with browser.get(f"{url}/api/session") as answer:
            assert answer.status == 401
        async with browser.get(link) as answer:
            assert str(answer.url) == f"{url}/"
        async with browser.get(f"{url}/api/session") as answer:
            session = await answer.json()
        assert session["mode"] == "kubeconfig"
        assert set(session["namespaces"]) >= {"red", "blue"}
        async with browser.get(f"{url}/api/events") as stream:
            events = Events(stream)
            await events.until("snapshot")
            async with browser.post(f"{url}/api/plan", json={"yaml": DRAFT}) as answer:
                plan = await answer.json()
            assert plan["ok"] is True, plan
            async with browser.post(f"{url}/api/workspaces", json={"yaml": DRAFT}) as answer:
                assert answer.status == 201, await answer.text()
            await events.until("change", "red/phi")
            assert events.rows["red/phi"]["state"] == "progressing"
            managers = kubectl(plane, "-n", "red", "get", "workspace", "phi", "--show-managed-fields", "-o", "json")
            assert {"kaito-console"} == {each["manager"] for each in json.loads(managers)["metadata"]["managedFields"]}
            wrong = DRAFT.replace("Standard_NC24ads_A100_v4", "").replace("name: phi,", "name: wrong,")
            async with browser.post(f"{url}/api/workspaces", json={"yaml": wrong + "x: 1\n"}) as answer:
                assert (answer.status, (await answer.json())["field"]) == (422, "x")

            plane.stop_api_server()
            problem = await events.until("problem")
            assert "does not answer" in problem["message"]
            async with browser.get(f"{url}/api/workspaces/red/phi") as answer:
                assert answer.status == 200
            async with browser.post(f"{url}/api/workspaces/red/phi/scale", json={"copies": 2}) as answer:
                assert answer.status == 503
            plane.start_api_server()
            await events.until("recovered")

            async with browser.post(f"{url}/api/workspaces/red/phi/scale", json={"copies": 2}) as answer:
                assert answer.status == 200, await answer.text()
            await events.until("change", "red/phi")
            assert events.rows["red/phi"]["copies"]["wanted"] == 2
            async with browser.delete(f"{url}/api/workspaces/red/phi") as answer:
                assert answer.status == 202
            while "red/phi" in events.rows:
                await events.until("change", "red/phi")
        async with browser.get(f"{url}/api/workspaces/red/phi") as answer:
            assert answer.status == 404


def account(plane: ControlPlane, name: str, namespace: str) -> str:
    """Makes a service account; returns a token of it."""
    kubectl(plane, "-n", namespace, "create", "serviceaccount", name)
    return kubectl(plane, "-n", namespace, "create", "token", name)


async def test_users_of_a_cluster_have_their_own_rights(plane: ControlPlane, tmp_path: Path) -> None:
    own = account(plane, "kaito-console", "kaito-system")
    for manifest in rbac.CONSOLE.manifests():
        if manifest["kind"] != "ServiceAccount":
            kubectl(plane, "apply", "-f", "-", stdin=json.dumps(manifest))
    writer, stranger = account(plane, "writer", "red"), account(plane, "stranger", "blue")
    rules = ["--verb=*", "--resource=workspaces.kaito.sh", "--resource=workspaces.kaito.sh/scale"]
    kubectl(plane, "-n", "red", "create", "role", "writer", *rules)
    kubectl(plane, "-n", "red", "create", "rolebinding", "writer", "--role=writer", "--serviceaccount=red:writer")
    document = yaml.safe_load(plane.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": own}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    async with console(kubeconfig, "--in-cluster", "--allow-writes") as link, aiohttp.ClientSession() as client:
        url = link.rstrip("/")

        def of(token: str) -> dict[str, str]:
            return {**WRITE, "Authorization": f"Bearer {token}"}

        for headers in (WRITE, of("wrong")):
            async with client.get(f"{url}/api/session", headers=headers) as answer:
                assert answer.status == 401
        for token in (stranger, writer):
            async with client.post(f"{url}/api/workspaces", json={"yaml": DRAFT}, headers=of(token)) as answer:
                assert answer.status == (201 if token == writer else 403), await answer.text()
        async with client.get(f"{url}/api/events", headers=of(writer)) as stream:
            events = Events(stream)
            await events.until("snapshot")
            while "red/phi" not in events.rows:
                await events.until("change")
        async with client.get(f"{url}/api/session", headers=of(stranger)) as answer:
            session = await answer.json()
        assert (session["user"], session["namespaces"]) == ("system:serviceaccount:blue:stranger", [])
        async with client.get(f"{url}/api/events", headers=of(stranger)) as stream:
            assert (await Events(stream).until("snapshot"))["workspaces"] == []
        path = f"{url}/api/workspaces/red/phi"
        for token, status in ((stranger, 403), (writer, 200)):
            async with client.get(path, headers=of(token)) as answer:
                assert answer.status == status
            async with client.post(f"{path}/scale", json={"copies": 0}, headers=of(token)) as answer:
                assert answer.status == status, await answer.text()
        for token, status in ((stranger, 403), (writer, 202)):
            async with client.delete(path, headers=of(token)) as answer:
                assert answer.status == status
